"""Edges sorted by target, and their transpose: what every attention backend walks over.

Both are made once per :class:`~torch_geometric.EdgeIndex` object and remembered for as long as it
lives, so that the layers of a model over one graph share them.
"""

import logging
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from torch_geometric import EdgeIndex

logger = logging.getLogger(__name__)

MANY_EDGES = 100_000

_prepared: "WeakTensorKeyDictionary" = WeakTensorKeyDictionary()


@dataclass
class NeighborGraph:
    """Edges of a bipartite graph by target, with their transpose by source on first use.

    Args:
        colptr: First edge of each target, ``[M + 1]``.
        row: Source of each edge, ``[E]``, sorted by target.
        perm: Position of each edge in the user's order, ``[E]``; ``None`` when it was sorted.
        num_sources: ``N``.
        transpose: ``(rowptr [N + 1], col [E], edge [E])``: targets of each source, and the rank of
            each of these edges in ``row``.
    """

    colptr: Tensor
    row: Tensor
    perm: Tensor | None
    num_sources: int
    transpose: tuple[Tensor, Tensor, Tensor] | None = None

    def transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """The same edges by source; made on first use."""
        if self.transpose is None:
            self.transpose = transpose(self.colptr, self.row, self.num_sources)
        return self.transpose


def neighbor_graph(edge_index: Tensor, num_sources: int, num_targets: int) -> NeighborGraph:
    """Edges sorted by target; remembered when ``edge_index`` is an ``EdgeIndex``.

    Checks that the indices are in range, which on CUDA waits for the device once per graph.

    Args:
        edge_index: ``[2, E]``, sources in row 0 and targets in row 1.
        num_sources: ``N``.
        num_targets: ``M``.

    Raises:
        ValueError: If the shape or dtype is wrong, or an index is out of range.
    """
    if not isinstance(edge_index, EdgeIndex):
        return _prepare(edge_index, num_sources, num_targets)
    by_size = _prepared.get(edge_index)
    if by_size is None:
        by_size = _prepared[edge_index] = {}
    graph = by_size.get((num_sources, num_targets))
    if graph is None:
        graph = _prepare(edge_index.as_tensor(), num_sources, num_targets)
        graph.row = graph.row.clone()  # else indices could change after they were checked
        by_size[num_sources, num_targets] = graph
    return graph


def sort_edges(
    edge_index: Tensor, num_sources: int, num_targets: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """``(colptr, row, perm)`` of edges in any order; indices are checked and narrowed to int32."""
    index = _index_dtype(edge_index.size(1), num_sources, num_targets)
    source, target = edge_index[0], edge_index[1]
    perm = None
    if edge_index.size(1) > 0:
        is_sorted = (target[1:] >= target[:-1]).all()
        facts = torch.stack([*source.aminmax(), *target.aminmax(), is_sorted.to(source.dtype)])
        low_source, high_source, low_target, high_target, ordered = facts.tolist()
        _check_range("source", "row 0", low_source, high_source, num_sources, "k")
        _check_range("target", "row 1", low_target, high_target, num_targets, "q")
        if not ordered:
            notice_unsorted()
            target, perm = torch.sort(target, stable=True)
            source = source[perm]
    return _pointer(target.contiguous(), num_targets, index), source.to(index), perm


def transpose(colptr: Tensor, row: Tensor, num_sources: int) -> tuple[Tensor, Tensor, Tensor]:
    """``(rowptr, col, edge)``: edges by source, each with its target and its rank by target."""
    if row.device.type == "cpu" and row.numel() >= MANY_EDGES:
        from spatiagraph.kernels import _numba  # five times quicker than to sort

        return _numba.transpose(colptr, row, num_sources)
    source, edge = torch.sort(row, stable=True)
    target = segment_ids(colptr, row.numel())
    return _pointer(source, num_sources, row.dtype), target[edge].to(row.dtype), edge.to(row.dtype)


def segment_ids(ptr: Tensor, length: int) -> Tensor:
    """Segment of each of the ``length`` rows that ``ptr`` divides, ``[length]``."""
    segments = torch.arange(ptr.numel() - 1, device=ptr.device, dtype=ptr.dtype)
    return segments.repeat_interleave(ptr.diff(), output_size=length)


def _prepare(edge_index: Tensor, num_sources: int, num_targets: int) -> NeighborGraph:
    if edge_index.dim() != 2 or edge_index.size(0) != 2:
        raise ValueError(f"Expected 'edge_index' of shape [2, E], got {list(edge_index.shape)}")
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"Expected 'edge_index' of dtype int64 or int32, got {edge_index.dtype}; "
            "cast it with .long()"
        )
    colptr, row, perm = sort_edges(edge_index, num_sources, num_targets)
    return NeighborGraph(colptr, row, perm, num_sources)


def _pointer(ordered: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """First position of each of ``size`` values in ``ordered``, ``[size + 1]``."""
    values = torch.arange(size + 1, device=ordered.device, dtype=ordered.dtype)
    return torch.searchsorted(ordered, values, out_int32=dtype == torch.int32)


def _index_dtype(*sizes: int) -> torch.dtype:
    return torch.int32 if max(sizes) < 2**31 - 1 else torch.int64


def _check_range(what: str, where: str, low: int, high: int, size: int, features: str) -> None:
    if low < 0 or high >= size:
        raise ValueError(
            f"Expected {what} indices ({where} of 'edge_index') in [0, {size}), the number of rows "
            f"of '{features}', got values from {low} to {high}"
        )


@cache
def notice_unsorted() -> None:
    """Say that edges had to be sorted, the first time."""
    logger.info(
        "edges are not sorted by target: sorting them on the fly (said once); the graphs of "
        "spatiagraph.graph and EdgeIndex.sort_by('col') are sorted"
    )
