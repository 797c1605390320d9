"""Pairing cells niche by niche beside one dense problem: seconds, memory and ratios in one run.

``pytest -m benchmark tests/benchmarks/test_bench_pairing.py -s`` prints a line per case. Each case
runs in an interpreter of its own, so that the memory it reports is its own peak above what was
loaded before.
"""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.benchmark

MEASURE = """
import json, resource, sys, time
import numpy as np, torch
from spatiagraph.flow import couple, couple_many, pair_cost, transport_plan

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def clouds(num, channels=20):
    generator = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(num, channels, generator=generator)
    return draw(), draw() + 0.3

kind, num, size, settings = json.loads(sys.argv[1])
x, y = clouds(num)
couple(x[:50], y[:50])  # loads what is loaded on first use
before, start = peak(), time.perf_counter()
if kind == "niches":
    found = couple_many(x.split(size), y.split(size), **settings)
    pairs = sum(len(part.target) for part in found)
elif kind == "one by one":
    pairs = sum(len(couple(a, b, **settings).target) for a, b in zip(x.split(size), y.split(size)))
elif kind == "dense":
    pairs = len(transport_plan(pair_cost(x, y), **settings))
else:
    pairs = len(couple(x, y, **settings).target)
seconds = time.perf_counter() - start
print(json.dumps({"pairs": pairs, "seconds": seconds, "mb": peak() - before}))
"""


def measured(kind, num, size=0, **settings):
    """Seconds and MB that a case takes until it converges; how many steps that is may differ."""
    case = json.dumps([kind, num, size, settings])
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, case]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["pairs"] == num
    return found


def report(capsys, **figures):
    rounded = {k: round(v, 2) if isinstance(v, float) else v for k, v in figures.items()}
    with capsys.disabled():
        print("\n" + "  ".join(f"{name}={value}" for name, value in rounded.items()))


def test_hundred_thousand_cells_by_niche(capsys):
    """A dense problem of 100,000 cells would hold 80 GB of costs, and a few times that in all.

    The two do not solve the same problem: cells per second say what it saves to look in the niche.
    """
    dense_num = 6_000
    dense = measured("dense", dense_num)
    for size in (20, 200, 500):
        niches = measured("niches", 100_000, size)
        report(
            capsys,
            cells=100_000,
            per_niche=size,
            s=niches["seconds"],
            mb=niches["mb"],
            dense_cells=dense_num,
            dense_s=dense["seconds"],
            dense_mb=dense["mb"],
            cells_per_s_ratio=100_000 / niches["seconds"] / (dense_num / dense["seconds"]),
        )
        assert niches["mb"] < dense["mb"]


def test_small_problems_together_beside_one_by_one(capsys):
    for size in (10, 30, 100):
        num = 200 * size
        together, alone = (measured(kind, num, size) for kind in ("niches", "one by one"))
        report(
            capsys,
            problems=200,
            per_niche=size,
            together_s=together["seconds"],
            one_by_one_s=alone["seconds"],
            faster=alone["seconds"] / together["seconds"],
        )


def test_one_large_problem_in_blocks(capsys):
    """Memory stays where the block is while the costs grow fourfold."""
    num, entries = 6_000, 1 << 20
    dense = measured("whole", num, max_entries=num**2)
    blocks = measured("whole", num, max_entries=entries)
    larger = measured("whole", 2 * num, max_entries=entries)
    report(
        capsys,
        cells=num,
        dense_s=dense["seconds"],
        dense_mb=dense["mb"],
        blocks_s=blocks["seconds"],
        blocks_mb=blocks["mb"],
        twice_the_cells_s=larger["seconds"],
        twice_the_cells_mb=larger["mb"],
    )
    assert blocks["mb"] < dense["mb"] / 3
    assert larger["mb"] < dense["mb"] / 3
