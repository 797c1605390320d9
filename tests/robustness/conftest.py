"""Commands in processes that can be killed, and start at once: forked where all is imported."""

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

# One command a line; for each the id of its process, and how that ended. The server itself computes
# nothing: a fork would not have the threads of its parent.
_SERVER = """
import json, os, sys, traceback, warnings
warnings.simplefilter("ignore")
import anndata, faiss, lightning.pytorch, matplotlib.figure, skimage.measure, spatialdata
import spatiagraph.cli, spatiagraph.evaluate, spatiagraph.models, spatiagraph.plot
import spatiagraph.report, spatiagraph.retrieval, spatiagraph.training, spatiagraph.data.read
print("ready", flush=True)
for line in sys.stdin:
    arguments, log = json.loads(line)
    process = os.fork()
    if process == 0:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        code = 99
        try:
            spatiagraph.cli.app(arguments)
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    print(process, flush=True)
    sys.stdin.readline()  # not waited for before the test is done with its id
    print(os.waitpid(process, 0)[1], flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, or minus the signal that killed it, and what it said."""

    code: int
    said: str

    @property
    def errors(self):
        return [line for line in self.said.splitlines() if line.startswith("error:")]


class Commands:
    """The commands, each run in a process of its own."""

    def __init__(self, folder: Path):
        self._log = folder / "log.txt"
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout.readline() == "ready\n"

    def start(self, *arguments) -> int:
        """Start a command; the id of its process."""
        line = json.dumps([[str(a) for a in arguments], str(self._log)])
        print(line, file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())

    @staticmethod
    def is_over(process: int) -> bool:
        """Whether a command has ended; it is a zombie until it is waited for."""
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        return state == "Z"

    def wait(self) -> Ended:
        """Wait for the command that was started."""
        print(file=self._server.stdin, flush=True)
        code = os.waitstatus_to_exitcode(int(self._server.stdout.readline()))
        return Ended(code, self._log.read_text())

    def __call__(self, *arguments) -> Ended:
        """Run a command to its end."""
        self.start(*arguments)
        return self.wait()

    def close(self):
        self._server.stdin.close()
        self._server.terminate()  # a test that failed may have left it waiting
        self._server.wait()
        self._server.stdout.close()


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    running = Commands(tmp_path_factory.mktemp("commands"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def material(commands, tmp_path_factory):
    """Folder with slides with and without image, runs on them and embeddings of the first."""
    from spatiagraph.data import make_tissue, write

    folder = tmp_path_factory.mktemp("material")
    write(make_tissue(200, num_genes=20, image=None, seed=0), folder / "plain.h5ad")
    tissue = make_tissue(600, num_types=3, num_niches=2, num_genes=40, image="dapi", seed=0)
    write(tissue, folder / "slide.zarr")
    rng = np.random.default_rng(0)
    pd.DataFrame(
        {
            "x": rng.uniform(0, 8, 3000),
            "y": rng.uniform(0, 8, 3000),
            "gene": rng.choice([f"g{i}" for i in range(12)], 3000),
            "cell_id": np.repeat([f"c{i}" for i in range(60)], 50),
        }
    ).to_csv(folder / "molecules.csv", index=False)
    for arguments in (
        ["fit", folder / "plain.h5ad", "--out", folder / "plain", *SMALL],
        ["fit", folder / "slide.zarr", "--out", folder / "run", *SMALL],
        ["embed", folder / "run", folder / "slide.zarr", "--out", folder / "embedded.h5ad"],
        [
            *["fit", folder / "plain.h5ad", "--model", "spatialformer", "--steps", 1],
            *["--channels", 16, "--accelerator", "cpu", "--out", folder / "former"],
        ],
    ):
        done = commands(*arguments)
        assert done.code == 0, done.said
    return folder


SMALL = ("--epochs", 3, "--channels", 8, "--accelerator", "cpu")


def command_lines(material: Path, out: Path, seed: int = 0) -> dict[str, list]:
    """Every command that writes, with all that it can write, under ``out``."""
    slide, embedded = material / "slide.zarr", material / "embedded.h5ad"
    plain = material / "plain.h5ad"
    small_generator = ["--size-px", 16, "--epochs", 2, "--steps", 2, "--max-cells", 12]
    return {
        "fit": ["fit", plain, "--out", out / "run", *SMALL, "--seed", seed],
        "embed": ["embed", material / "plain", plain, "--out", out / "embedded.h5ad"],
        "prepare h5ad": ["prepare", slide, "--out", out / "slide.h5ad"],
        "prepare zarr": ["prepare", slide, "--out", out / "slide.zarr"],
        "search": [
            *["search", embedded, "--cell", "cell1", "--out", out / "hits.csv"],
            *["--gallery", out / "hits.png", "--save-index", out / "index"],
        ],
        "report": ["report", embedded, "--run", material / "run", "--out", out / "page.html"],
        "evaluate": [
            *["evaluate", embedded, "--domains", "niche", "--seeds", 1, "--out", out / "scores.csv"]
        ],
        "colocalize": [
            *["colocalize", material / "molecules.csv", "--out", out / "pairs", "--draws", 2],
        ],
        "perturb": [
            *["perturb", material / "former", plain, "--types", "cell_type", "--first", "type0"],
            *["--second", "type1", "--num-pairs", 8, "--min-support", 4, "--screen", 4],
            *["--device", "cpu", "--out", out / "asked", "--seed", seed],
        ],
        "domains": [
            *["domains", embedded, "--k", 3, "--method", "kmeans", "--out", out / "domains.h5ad"],
            *["--curve", out / "curve.png", "--max-k", 3],
        ],
        "morphology": [
            *["morphology", slide, "--out", out / "morphology", "--epochs", 2, "--size-px", 16],
            *["--accelerator", "cpu", "--seed", seed],
        ],
        "generate": [
            *["generate", embedded, "--states", "cell_type", "--transition", "type1:type2:larger"],
            *["--out", out / "generated", "--accelerator", "cpu", "--seed", seed],
            *small_generator,
        ],
        "demo": ["demo", slide, "--epochs", 1, "--out", out / "demo", "--seed", seed],
    }


_TAKEN = {"seconds", "peak_gb"}  # of time and memory, which no two runs share


def contents(folder: Path) -> dict[str, str]:
    """A hash of every file below a folder, but for checkpoints and the times that were taken."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.parent.name in ("checkpoints", "tensorboard"):
            continue
        if path.suffix == ".csv":
            table = pd.read_csv(path)
            content = table.drop(columns=[*_TAKEN & {*table}]).to_csv().encode()
        elif path.suffix == ".html":  # a page says how many seconds training took
            content = re.sub(rb", \d+ s\b", b"", path.read_bytes())
        elif path.suffix == ".h5ad":
            content = _values(path)
        else:
            content = path.read_bytes()
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def _values(path: Path) -> bytes:
    """Names and values of everything in an HDF5 file, whose bytes also hold addresses."""
    found = []

    def add(name, item):
        value = item[()] if isinstance(item, h5py.Dataset) else None
        numbers = hasattr(value, "tobytes") and value.dtype.kind != "O"
        content = value.tobytes() if numbers else repr(value).encode()
        found.append(name.encode() + b"\0" + content)

    with h5py.File(path) as file:
        file.visititems(add)
    return b"\0".join(sorted(found))


@pytest.fixture(scope="session")
def lines():
    return command_lines


@pytest.fixture(scope="session")
def contents_of():
    return contents
