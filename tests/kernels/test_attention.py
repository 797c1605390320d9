"""The reference against a loop over targets, on graphs small enough to read."""

import math

import pytest
import torch
from torch.testing import assert_close
from torch_geometric import EdgeIndex

from spatiagraph.kernels import neighbor_attention, use

# target 0 hears 1, 2 and 2 again; 1 hears itself; 2 hears nobody; 3 hears everyone
SOURCE = [1, 2, 2, 1, 0, 1, 2, 3, 4]
TARGET = [0, 0, 0, 1, 3, 3, 3, 3, 3]
EDGES = torch.tensor([SOURCE, TARGET])


def attention_inputs(heads, channels, dtype=torch.float64, targets=4, sources=5):
    torch.manual_seed(0)
    q = torch.randn(targets, heads, channels, dtype=dtype, requires_grad=True)
    k = torch.randn(sources, heads, channels, dtype=dtype, requires_grad=True)
    v = torch.randn(sources, heads, channels, dtype=dtype, requires_grad=True)
    bias = torch.randn(EDGES.size(1), heads, dtype=dtype, requires_grad=True)
    return q, k, v, bias


def loop_attention(q, k, v, edge_index, bias=None):
    out = []
    for i in range(q.size(0)):
        at = (edge_index[1] == i).nonzero().flatten()
        j = edge_index[0, at]
        score = (q[i] * k[j]).sum(-1) / math.sqrt(q.size(-1))
        if bias is not None:
            score = score + bias[at]
        out.append((score.softmax(0).unsqueeze(-1) * v[j]).sum(0))
    return torch.stack(out)


@pytest.mark.parametrize("with_bias", [False, True])
def test_neighbor_attention_matches_a_loop_over_targets(with_bias):
    q, k, v, bias = attention_inputs(2, 3)
    bias = bias if with_bias else None
    with use("torch"):
        out = neighbor_attention(q, k, v, EDGES, bias)
    assert_close(out, loop_attention(q, k, v, EDGES, bias))
    assert_close(out[2], torch.zeros(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_match_finite_differences(with_bias):
    q, k, v, bias = attention_inputs(2, 3)
    inputs = (q, k, v, EDGES, bias) if with_bias else (q, k, v, EDGES)
    with use("torch"):
        assert torch.autograd.gradcheck(neighbor_attention, inputs)


def test_edge_index_and_plain_tensor_agree():
    q, k, v, bias = attention_inputs(2, 3)
    sorted_edges = EdgeIndex(EDGES, sparse_size=(5, 4), sort_order="col")
    out = neighbor_attention(q, k, v, sorted_edges, bias)
    assert_close(out, neighbor_attention(q, k, v, EDGES, bias))


def test_edge_order_does_not_matter():
    q, k, v, bias = attention_inputs(2, 3)
    perm = torch.randperm(EDGES.size(1), generator=torch.Generator().manual_seed(1))
    out = neighbor_attention(q, k, v, EDGES, bias)
    assert_close(neighbor_attention(q, k, v, EDGES[:, perm], bias[perm]), out)
