"""Time of fit, embed and one attention layer in two checkouts, in turns on one slide.

    git worktree add ../before 9ae4f14
    python tests/benchmarks/compare_versions.py ../before . --cells 20000

Each checkout is a process of its own, and the two take turns, round by round, so that both meet the
same machine. The same synthetic slide (200 genes, no image) and the default model; kernels are
compiled in a first round that does not count. Prints the ratio of each round, old over new, of
elapsed and of CPU time.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TASKS = ("fit", "embed", "attention")
WORKER = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
import torch
torch.set_num_threads(2)
import spatiagraph as sg
from spatiagraph.graph import knn_graph
from spatiagraph.models import ContextModel
from spatiagraph.nn import GraphTransformerLayer

slide = sg.read(sys.argv[1])
model = ContextModel.for_slides([slide])
layer, edges = GraphTransformerLayer(128, 4), knn_graph(slide.pos, 16)
h = torch.randn(slide.num_cells, 128, requires_grad=True)
grad = torch.randn_like(h)


def fit():
    sg.fit(model, [slide], max_epochs=1, accelerator="cpu", progress=False)


def embed():
    sg.embed(model, slide, device="cpu", progress=False)


def attention():
    layer(h, edges).backward(grad)


for line in sys.stdin:
    start, cpu = time.perf_counter(), time.process_time()
    globals()[line.strip()]()
    print("TIMES", json.dumps([time.perf_counter() - start, time.process_time() - cpu]), flush=True)
"""


class Checkout:
    """A process that runs one task at a time with the package of a folder."""

    def __init__(self, folder: Path, slide: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, str(slide)],
            env={"PYTHONPATH": str(folder.resolve()), "PATH": "", "OMP_WAIT_POLICY": "PASSIVE"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, task: str) -> list[float]:
        """Elapsed and CPU seconds of a task."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(task + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("TIMES "):
                return json.loads(line.removeprefix("TIMES "))
        raise RuntimeError(f"the process ended with {self.process.wait()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from spatiagraph.data import make_tissue

    with tempfile.TemporaryDirectory() as folder:
        slide = Path(folder) / "slide.h5ad"
        make_tissue(options.cells, num_genes=200, image=None, seed=0).adata.write_h5ad(slide)
        old, new = (Checkout(each, slide) for each in (options.old, options.new))
        for task in TASKS:
            rounds = [(old.run(task), new.run(task)) for _ in range(options.rounds + 1)][1:]
            for clock, name in enumerate(("elapsed", "CPU")):
                ratios = [before[clock] / after[clock] for before, after in rounds]
                seconds = [min(side[clock] for side in each) for each in zip(*rounds, strict=True)]
                print(
                    f"{task:9} {name:7} old {seconds[0]:.2f} s, new {seconds[1]:.2f} s, old / new "
                    f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
                    flush=True,
                )
        for checkout in (old, new):
            checkout.process.stdin.close()
            checkout.process.wait()


if __name__ == "__main__":
    main()
