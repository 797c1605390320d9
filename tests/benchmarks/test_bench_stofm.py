"""A layer of SToFM beside every tensor of its equations: memory and time on one thread.

A layer goes forward and backward with 8 heads and 128 kernels, at 1,050 nodes (a published
sub-slice) and 4,200. Each way runs in a process of its own, whose highest memory is read at the
end. ``tests/gpu/measure.py stofm`` is the same on CUDA, with the fused kernel beside both.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import importlib.util, json, resource, sys, time
import torch

torch.set_num_threads(1)
way, num, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
spec = importlib.util.spec_from_file_location("measure", path)
measure = importlib.util.module_from_spec(spec)
spec.loader.exec_module(measure)
model, nodes = measure.pair_layer(num, torch.device("cpu"))


def run():
    begin = time.perf_counter()
    h = measure.plain_layer(model, nodes) if way == "plain" else model(nodes).h
    h.square().sum().backward()
    model.zero_grad()
    return time.perf_counter() - begin


base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rounds = [run() for _ in range(3 if num < 2000 else 1)]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"mb": (peak - base) / 1024, "seconds": sorted(rounds)[len(rounds) // 2]}))
"""
MEASURE = Path(__file__).parents[1] / "gpu/measure.py"


def measured(way: str, num_nodes: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, way, str(num_nodes), str(MEASURE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.benchmark
def test_bench_a_layer_keeps_no_kernel_of_all_pairs():
    plain, ours, large = measured("plain", 1050), measured("ours", 1050), measured("ours", 4200)
    for name, found in {"plain 1,050": plain, "ours 1,050": ours, "ours 4,200": large}.items():
        print(f"{name}: {found['mb']:,.0f} MB, {found['seconds']:.2f} s")
    print(f"memory of plain over ours {plain['mb'] / ours['mb']:.1f}")
    assert plain["mb"] > 8 * ours["mb"]
    assert ours["seconds"] < plain["seconds"]
    assert large["mb"] < 4096
