"""The CUDA kernels against the reference: on the GPU if there is one, else interpreted on CPU.

Triton reads ``TRITON_INTERPRET`` when it is first imported, so without a GPU one test runs the
others, and those of ``test_triton_pairs.py``, in a process of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spatiagraph.kernels import neighbor_attention, use

pytest.importorskip("triton")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETING = os.environ.get("TRITON_INTERPRET") == "1"
# Triton's interpreter stores 0-d arrays into 1-d ones
pytestmark = pytest.mark.filterwarnings(
    "ignore:Conversion of an array with ndim > 0:DeprecationWarning"
)
runs_triton = pytest.mark.skipif(
    DEVICE == "cpu" and not INTERPRETING, reason="runs in the process of the first test"
)


@pytest.mark.skipif(DEVICE == "cuda" or INTERPRETING, reason="the tests below run here")
def test_everything_below_and_on_pairs_holds_in_tritons_interpreter():
    files = [Path(__file__), Path(__file__).with_name("test_triton_pairs.py")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"TRITON_INTERPRET": "1"}
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout


@runs_triton
@pytest.mark.parametrize(
    ("graph", "dtype"),
    [
        *(("duplicates", d) for d in (torch.float64, torch.float32, torch.bfloat16, torch.float16)),
        ("one cell", torch.float32),
        ("no edges", torch.bfloat16),
        ("no cells", torch.float64),
    ],
    indirect=["graph"],
)
def test_triton_matches_the_reference(compare, graph, dtype):
    compare("triton", graph, dtype=dtype, device=DEVICE)


@runs_triton
@pytest.mark.parametrize(("heads", "channels"), [(1, 8), (3, 12), (4, 32), (8, 5), (1, 100)])
@pytest.mark.parametrize("graph", ["duplicates"], indirect=True)
def test_triton_matches_the_reference_for_every_size(compare, graph, heads, channels):
    compare("triton", graph, heads, channels, with_bias=False, device=DEVICE)


@runs_triton
@pytest.mark.parametrize("graph", ["duplicates"], indirect=True)
def test_triton_drops_the_same_edges(compare, graph):
    compare("triton", graph, dropout=0.4, dtype=torch.float64, device=DEVICE)


@runs_triton
def test_triton_leaves_hubs_to_the_second_launch(compare):
    everyone, nobody = torch.arange(300), torch.zeros(300, dtype=torch.long)
    compare("triton", (torch.stack([everyone, nobody]), 300, 3), channels=4, device=DEVICE)
    compare("triton", (torch.stack([nobody, everyone % 9]), 2, 9), channels=4, device=DEVICE)


@runs_triton
def test_triton_hides_edges_of_infinite_bias():
    q, k, v = torch.randn(3, 3, 2, 8, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    edge_index = torch.tensor([[0, 1, 2], [0, 0, 1]], device=DEVICE)
    bias = torch.tensor([0.0, -torch.inf, -torch.inf], device=DEVICE).unsqueeze(1).repeat(1, 2)
    with use("triton"):
        out = neighbor_attention(q, k, v, edge_index, bias)
    torch.testing.assert_close(out[0], v[0])
    assert out[1:].count_nonzero() == 0


@pytest.mark.gpu
def test_triton_gradients_are_the_same_bits_from_run_to_run():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 5000, 4, 32, device="cuda", requires_grad=True)
    edge_index = torch.randint(5000, (2, 80_000), device="cuda")
    runs = []
    for _ in range(2):
        out = neighbor_attention(q, k, v, edge_index, dropout=0.1, seed=3)
        runs.append([out, *torch.autograd.grad(out.square().sum(), (q, k, v))])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
