"""One layer of the SE(2) transformer: peak memory and time, beside every tensor of the equations.

Forward and backward with 8 heads and 128 kernels, at 1,050 nodes (a published sub-slice) and 4,200.
Each way runs in a process of its own, whose highest memory is read at the end.
"""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, math, resource, sys, time
import torch
from spatiagraph.graph.pairs import known_pairs
from spatiagraph.nn import Nodes, SE2Transformer

torch.set_num_threads(1)
way, num = sys.argv[1], int(sys.argv[2])
torch.manual_seed(0)
model = SE2Transformer(256, 256, 1, 8, num_kernels=128, dropout=0.0)
kind = torch.tensor([1] + [2] * 30 + [0] * (num - 31))
pos = 70 * torch.rand(num, 2)
pairs = known_pairs(pos, kind, 49)
nodes = Nodes(torch.randn(num, 256), pos, kind, torch.zeros(num).long(), pairs)


def plain():
    away = torch.full((num, num), 100.0)
    i, j = pairs
    away[i, j] = away[j, i] = (pos[i] - pos[j]).norm(dim=1).clamp(min=1e-4)
    away[0] = away[:, 0] = 0
    away.fill_diagonal_(0)
    start = model.bias.mlp(model.bias.kernels(away.view(-1))).view(num, num, 8)
    start = (start * (away > 0).unsqueeze(2)).permute(2, 0, 1)
    h = model.embed(nodes.x) + model.kind(nodes.kind)
    layer = model.layers[0]
    q, k, v = layer.project(h.unsqueeze(0))
    s = q @ k.transpose(2, 3) / math.sqrt(32) + start
    return layer(h.unsqueeze(0), s.softmax(3) @ v)[0]


def run():
    begin = time.perf_counter()
    h = plain() if way == "plain" else model(nodes).h
    h.square().sum().backward()
    gradient = model.bias.mlp[2].weight.grad.norm().item()
    model.zero_grad()
    return time.perf_counter() - begin, gradient


base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rounds = [run() for _ in range(3 if num < 2000 else 1)]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
seconds, gradient = sorted(rounds)[len(rounds) // 2]
print(json.dumps({"mb": (peak - base) / 1024, "seconds": seconds, "gradient": gradient}))
"""


def measured(way: str, num_nodes: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, way, str(num_nodes)]
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
