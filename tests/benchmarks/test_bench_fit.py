"""Fit and embed on two threads: cells per second and peak memory, 500 genes, no image.

Of SPATIA (``tiny``) both stages: everything end to end, and context on cells encoded once.

    pytest -m benchmark -s tests/benchmarks/test_bench_fit.py

Each run is a process of its own, so that peak memory is its own.
"""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.benchmark

RUN = """
import json, resource, sys, time
import torch
torch.set_num_threads(2)
import spatiagraph as sg
from spatiagraph import models

slide = sg.make_tissue(int(sys.argv[1]), num_genes=500, image=None, seed=0)
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
model = getattr(models, sys.argv[2]).for_slides([slide])
built = time.perf_counter() - start
run = {"max_epochs": int(sys.argv[3]), "accelerator": "cpu", "progress": False}
rate = lambda result: float((result.history.cells / result.history.seconds).median())
figures = {"fit_cells_per_s": rate(sg.fit(model, [slide], **run))}
if sys.argv[2] == "Spatia":
    second = sg.fit(model, [slide], **run, cache_cells=True, tile_size=4096)
    figures["context_cells_per_s"] = rate(second)
sg.embed(model, slide, device="cpu", progress=False)  # compiles, warms up
start = time.perf_counter()
sg.embed(model, slide, device="cpu", progress=False)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({
    "cells": slide.num_cells,
    "build_s": built,
    **figures,
    "embed_cells_per_s": slide.num_cells / seconds,
    "slide_gb": base / 1e6,
    "peak_gb": peak / 1e6,
}))
"""


@pytest.mark.parametrize(("model", "epochs"), [("ContextModel", 3), ("Spatia", 1)])
@pytest.mark.parametrize("num_cells", [5_000, 50_000])
def test_fit_and_embed(model: str, epochs: int, num_cells: int) -> None:
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(num_cells), model, str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.strip().splitlines()[-1])
    print("\n" + json.dumps(figures, indent=1))
    assert figures["cells"] == num_cells
