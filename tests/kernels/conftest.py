"""Graphs that kernels meet, and the comparison of a backend with the float64 reference."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from spatiagraph.kernels import neighbor_attention, use

Graph = tuple[Tensor, int, int]  # edge_index, num_sources, num_targets


def _nearest(cells: int = 60, k: int = 5) -> Graph:
    pos = torch.rand(cells, 2)
    source = torch.cdist(pos, pos).topk(k + 1, largest=False).indices  # the cell itself included
    target = torch.arange(cells).repeat_interleave(k + 1)
    return torch.stack([source.flatten(), target]), cells, cells


def _ragged(cells: int = 80) -> Graph:
    pos = torch.rand(cells, 2)
    source, target = (torch.cdist(pos, pos) < 0.2).nonzero().T
    order = target.argsort(stable=True)
    return torch.stack([source[order], target[order]]), cells, cells


def _hubs(edges: int = 400) -> Graph:
    """One target hears everyone, one source is heard by everyone."""
    everyone, nobody = torch.arange(edges), torch.zeros(edges, dtype=torch.long)
    into, out_of = torch.stack([everyone, nobody]), torch.stack([nobody, everyone])
    return torch.cat([into, out_of], 1), edges, edges


def _duplicates() -> Graph:
    """Edges in any order, some twice; targets 6 to 8 and sources 7 to 10 have none."""
    return torch.stack([torch.randint(7, (50,)), torch.randint(6, (50,))]), 11, 9


GRAPHS: dict[str, Callable[[], Graph]] = {
    "nearest": _nearest,
    "ragged": _ragged,
    "hubs": _hubs,
    "duplicates": _duplicates,
    "one cell": lambda: (torch.zeros(2, 1, dtype=torch.long), 1, 1),
    "no edges": lambda: (torch.zeros(2, 0, dtype=torch.long), 4, 3),
    "no cells": lambda: (torch.zeros(2, 0, dtype=torch.long), 0, 0),
}


def _most_edges(edge_index: Tensor) -> int:
    """Edges of the node that has most."""
    return max([1, *(int(ends.bincount().max()) for ends in edge_index if ends.numel())])


@pytest.fixture(params=GRAPHS)
def graph(request: pytest.FixtureRequest) -> Graph:
    torch.manual_seed(0)
    return GRAPHS[request.param]()


def largest_differences(
    backend: str,
    graph: Graph,
    heads: int = 2,
    channels: int = 16,
    dtype: torch.dtype = torch.float32,
    with_bias: bool = True,
    dropout: float = 0.0,
    device: str = "cpu",
    strided: bool = False,
) -> list[float]:
    """Of output and gradients from those of the float64 reference, in units of what is allowed."""
    torch.manual_seed(1)
    edge_index, num_sources, num_targets = graph
    shapes = [(n, heads, channels) for n in (num_targets, num_sources, num_sources)]
    if with_bias:
        shapes.append((edge_index.size(1), heads))
    inputs = [torch.randn(shape, dtype=dtype) for shape in shapes]
    weight = torch.randn(shapes[0], dtype=dtype)

    def results(backend: str, dtype: torch.dtype) -> list[Tensor]:
        tensors = [x.to(device, dtype) for x in inputs]
        if strided:
            tensors = [x.mT.contiguous().mT for x in tensors]
        tensors = [x.requires_grad_() for x in tensors]
        q, k, v, *bias = tensors
        with use(backend):
            out = neighbor_attention(q, k, v, edge_index.to(device), *bias, dropout=dropout, seed=5)
            return [out, *torch.autograd.grad(out, tensors, weight.to(device, dtype))]

    # sums in another order: a few units in the last place of the largest value, and more
    # where many terms cancel; half precision keeps the output for the backward pass rounded
    allowed = {torch.float64: 5e-13, torch.float32: 2e-6, torch.float16: 1e-2}
    tolerance = allowed.get(dtype, 2e-2)
    tolerance *= _most_edges(edge_index) ** 0.5
    wide, found = torch.float64, []
    for got, expected in zip(results(backend, dtype), results("torch", wide), strict=True):
        assert got.dtype == dtype
        assert got.shape == expected.shape
        if not expected.numel():
            continue
        size = max(1.0, expected.abs().max().item())
        found.append((got.to(wide) - expected).abs().max().item() / (tolerance * size))
    return found


@pytest.fixture
def compare() -> Callable[..., None]:
    """Assert that output and gradients of a backend are those of the float64 reference."""

    def run(*args: Any, **options: Any) -> None:
        found = largest_differences(*args, **options)
        assert all(each <= 1 for each in found), found  # NaN is not

    return run
