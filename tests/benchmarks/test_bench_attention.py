"""One layer of the graph transformer, forward and backward, beside PyG and beside its products.

    pytest -m benchmark -s tests/benchmarks/test_bench_attention.py
    python tests/benchmarks/test_bench_attention.py docs/images/attention_scaling.png

The layer is ``spatiagraph.nn.GraphTransformerLayer`` as models use it; its peer has PyG's
``TransformerConv`` in place of the attention and the same norms and MLP; its products are the
matrix products of its four linear maps and of their gradients, which no layer can do without.

128 channels in 4 heads, float32, 2 threads, k nearest neighbours. Each measurement is a process of
its own, so that peak memory is its own; for their times, the two sides take turns in one process,
so that both meet the same machine. The second command draws how time and memory grow.
"""

import json
import statistics
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.benchmark

ROUNDS = 7
RUN = """
import json, re, statistics, sys, time
import numpy as np
import torch
from torch import nn
from torch_geometric import EdgeIndex
from torch_geometric.nn import TransformerConv

from spatiagraph.graph import hilbert_order, knn_graph
from spatiagraph.kernels import neighbor_attention
from spatiagraph.nn import GraphTransformerLayer

case = json.loads(sys.argv[1])
HEADS, WIDTH = 4, 32
CHANNELS = HEADS * WIDTH
torch.set_num_threads(case["threads"])
torch.manual_seed(0)


class Peer(GraphTransformerLayer):
    '''The same norms and MLP around TransformerConv, which has the four projections.'''

    def __init__(self):
        super().__init__(CHANNELS, HEADS)
        del self.qkv, self.out
        self.conv = TransformerConv(CHANNELS, WIDTH, heads=HEADS)

    def forward(self, h, edge_index):
        h = h + self.scale_attention * self.conv(self.norm_attention(h), edge_index)
        return h + self.scale_mlp * self.mlp(self.norm_mlp(h))


def products(num):
    '''Matrix products of a layer: forward, and backward by input and by weight.'''
    weights = [p for p in GraphTransformerLayer(CHANNELS, HEADS).parameters() if p.dim() == 2]
    pairs = [
        (w.detach(), torch.randn(num, w.size(1)), torch.randn(num, w.size(0))) for w in weights
    ]

    def step():
        start, start_cpu = time.perf_counter(), time.process_time()
        for weight, x, grad in pairs:
            x @ weight.t(), grad @ weight, grad.t() @ x
        return time.perf_counter() - start, time.process_time() - start_cpu

    return step


def memory(field):
    with open("/proc/self/status") as status:
        return int(re.search(field + r":\\s+(\\d+) kB", status.read())[1]) / 1e6


def cells(num, k, order):
    rng = np.random.default_rng(0)
    pos = 10 * num**0.5 * rng.random((num, 2))
    if order == "scanned":  # by fields of view, row by row, as instruments write them
        pos = pos[np.lexsort([pos[:, 0] // 200, pos[:, 1] // 200])]
    if order == "hilbert":
        pos = pos[hilbert_order(pos).numpy()]
    return knn_graph(pos, k)


def prepare(side, num, k):
    if side == "products":
        return products(num)
    edge_index = cells(num, k, case["order"])
    grad = torch.randn(num, CHANNELS)
    conv = TransformerConv(CHANNELS, WIDTH, heads=HEADS)
    if case["part"] == "layer":
        inputs = [torch.randn(num, CHANNELS, requires_grad=True)]
        run = Peer() if side == "pyg" else GraphTransformerLayer(CHANNELS, HEADS)
    else:
        inputs = [torch.randn(num, HEADS, WIDTH, requires_grad=True) for _ in range(3)]
        run = neighbor_attention
        if side == "pyg":
            def run(q, k, v, edge_index):
                return conv.propagate(edge_index, query=q, key=k, value=v, edge_attr=None)
    if side == "pyg":
        edge_index = edge_index.as_tensor().clone()  # as fast for it as an EdgeIndex

    def step():
        for x in inputs:
            x.grad = None
        start, start_cpu = time.perf_counter(), time.process_time()
        out = run(*inputs, edge_index)
        out.backward(grad.view_as(out))
        return time.perf_counter() - start, time.process_time() - start_cpu

    return step


for side in case["sides"]:
    prepare(side, 1000, 8)()  # compiles
steps = {side: prepare(side, case["cells"], case["k"]) for side in case["sides"]}
before = memory("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # forget the peak so far
for step in steps.values():
    step()  # sorts the edges, warms up
rounds = [
    {side: [step() for _ in range(case["steps"][side])] for side, step in steps.items()}
    for _ in range(case["rounds"])
]
print(json.dumps({
    "rounds": [
        {side: [statistics.median(x) for x in zip(*times)] for side, times in one.items()}
        for one in rounds
    ],
    "peak_gb": memory("VmHWM") - before,
    "process_gb": memory("VmHWM"),
}))
"""


def measure(
    *sides: str,
    part: str = "layer",
    cells: int = 100_000,
    k: int = 16,
    order: str = "hilbert",
    rounds: int = 3,
    threads: int = 2,
) -> dict[str, Any]:
    """Time of one forward and backward pass, and the most memory it needs beyond its inputs.

    Returns:
        ``rounds``, each with ``(seconds, CPU seconds)`` of each side, ``peak_gb`` and
        ``process_gb``.
    """
    case = {
        "sides": sides, "part": part, "cells": cells, "k": k, "order": order, "rounds": rounds,
        "threads": threads, "steps": {"ours": 3, "products": 3, "pyg": 1},
    }  # fmt: skip
    command = [sys.executable, "-W", "ignore", "-c", RUN, json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def seconds(run: dict[str, Any], side: str) -> float:
    """Of the fastest round: the one that other programs disturbed least."""
    return min(one[side][0] for one in run["rounds"])


def cpu_seconds(run: dict[str, Any], side: str) -> float:
    """Of all threads, in the fastest round: what other programs take of the clock is not in it."""
    return min(one[side][1] for one in run["rounds"])


def say(capsys: pytest.CaptureFixture[str], **figures: object) -> None:
    shown = (
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in figures.items()
    )
    with capsys.disabled():
        print("\n" + "  ".join(shown))


@pytest.mark.parametrize("part", ["layer", "attention"])
def test_time_against_transformer_conv(capsys, part):
    """Of the layer both ratios: over its own matrix products, and of the peer over it."""
    sides = ("ours", "pyg", "products") if part == "layer" else ("ours", "pyg")
    run = measure(*sides, part=part, rounds=ROUNDS)
    figures: dict[str, object] = {f"{side}_s": seconds(run, side) for side in sides}
    for name, over, under in (
        ("times_faster", "pyg", "ours"),
        ("over_products", "ours", "products"),
    ):
        if over in sides and under in sides:
            for clock, unit in enumerate(("", "_cpu")):
                ratios = [one[over][clock] / one[under][clock] for one in run["rounds"]]
                figures[f"{name}{unit}"] = statistics.median(ratios)
                figures[f"{name}{unit}_from"], figures[f"{name}{unit}_to"] = (
                    min(ratios),
                    max(ratios),
                )
    say(capsys, part=part, cells=100_000, **figures)


@pytest.mark.parametrize("part", ["layer", "attention"])
def test_memory_against_transformer_conv(capsys, part):
    ours, theirs = (measure(side, part=part, rounds=1)["peak_gb"] for side in ("ours", "pyg"))
    say(capsys, part=part, cells=100_000, ours_gb=ours, pyg_gb=theirs, times_less=theirs / ours)


def test_a_million_cells(capsys):
    run = measure("ours", cells=1_000_000)
    say(
        capsys,
        cells=1_000_000,
        seconds=seconds(run, "ours"),
        peak_gb=run["peak_gb"],
        process_gb=run["process_gb"],
    )


@pytest.mark.parametrize("cells", [100_000, 1_000_000])
def test_order_of_cells(capsys, cells):
    orders = ("hilbert", "scanned", "random")
    runs = {order: measure("ours", part="attention", cells=cells, order=order) for order in orders}
    figures = {f"{order}_s": seconds(run, "ours") for order, run in runs.items()}
    slower = figures["random_s"] / figures["hilbert_s"]
    say(capsys, part="attention", cells=cells, **figures, random_over_hilbert=slower)


def draw(path: str) -> None:
    """Time and peak memory against the number of cells, and time against neighbours."""
    import matplotlib.pyplot as plt

    sizes = [10_000, 20_000, 50_000, 100_000, 200_000]
    degrees = [4, 8, 16, 32, 64]
    sides = {
        "ours": ("spatiagraph", "C0", 200_000),
        "pyg": ("PyG TransformerConv", "C3", 50_000),
    }
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    memory = axes[0].twinx()
    for side, (name, color, most) in sides.items():
        cells = [n for n in sizes if n <= most]
        runs = [measure(side, cells=n, rounds=1) for n in cells]
        spent = [cpu_seconds(run, side) for run in runs]
        axes[0].plot(cells, spent, "o-", color=color, label=name)
        memory.plot(cells, [run["peak_gb"] for run in runs], "s:", color=color, markersize=4)
        runs = [measure(side, cells=20_000, k=k, rounds=1) for k in degrees]
        spent = [cpu_seconds(run, side) for run in runs]
        axes[1].plot(degrees, spent, "o-", color=color, label=name)
    axes[0].set(xscale="log", yscale="log", xlabel="cells (16 neighbours)", ylabel="CPU s (—)")
    memory.set(yscale="log", ylabel="peak memory, GB (···)")
    axes[1].set(xscale="log", yscale="log", xlabel="neighbours (20,000 cells)", ylabel="CPU s")
    axes[1].set_xticks(degrees, [str(k) for k in degrees])
    axes[1].minorticks_off()
    axes[0].legend(frameon=False)
    figure.suptitle("One layer with norms and MLP, forward + backward: 128 channels, 4 heads")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(sys.argv[1])
