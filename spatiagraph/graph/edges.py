"""Edge lists of one or many sections → one sorted ``EdgeIndex``."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph.graph.ranges import ranges, row_of_each


def neighbors_to_edge_index(neighbors: NDArray[np.int64]) -> EdgeIndex:
    """``EdgeIndex`` of a table of neighbours, ``[N, K]``, rows ascending."""
    num_cells, k = neighbors.shape
    edges = np.empty((2, num_cells * k), dtype=np.int64)
    edges[0] = neighbors.ravel()
    edges[1].reshape(num_cells, k)[:] = np.arange(num_cells)[:, None]
    return edge_index(edges, num_cells)


def edge_index(edges: NDArray[np.int64], num_cells: int) -> EdgeIndex:
    """Wrap ``[2, E]`` edges that are sorted by target as an ``EdgeIndex``."""
    return EdgeIndex(
        torch.from_numpy(np.ascontiguousarray(edges)),
        sparse_size=(num_cells, num_cells),
        sort_order="col",
    )


def edges_by_target(
    source: Tensor, target: Tensor, num_sources: int, num_targets: int
) -> EdgeIndex:
    """Wrap edges that are sorted by target as an ``EdgeIndex``.

    Args:
        source: ``[E]``.
        target: ``[E]``, ascending.
        num_sources: Number of sources.
        num_targets: Number of targets.
    """
    size = (num_sources, num_targets)
    return EdgeIndex(torch.stack([source, target]), sparse_size=size, sort_order="col")


def incoming_edges(
    edges: EdgeIndex, targets: Tensor, renumber: Callable[[Tensor], Tensor], num_sources: int
) -> EdgeIndex:
    """Select the edges into some targets from the sources that are kept, and renumber both.

    Args:
        edges: Edges sorted by target.
        targets: Targets that are kept, in their new order, ``[T]``.
        renumber: Sources → their new numbers, negative for those that are not kept.
        num_sources: Sources that are kept.
    """
    (ptr, source), _ = edges.get_csc()
    degree = ptr[targets + 1] - ptr[targets]
    source = renumber(source[ranges(ptr[targets], degree)])
    target = row_of_each(degree)
    kept = source >= 0
    return edges_by_target(source[kept], target[kept], num_sources, targets.numel())


def cat_edges(
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]], num_cells: int
) -> EdgeIndex:
    """Concatenate the edges of sections to those of one graph.

    Args:
        parts: For each section its rows, ascending, and its edges ``[2, E_s]`` in positions
            within these rows, sorted by target, then by source.
        num_cells: Cells of all sections, ``N``.
    """
    if len(parts) == 1:  # the rows are all rows
        return edge_index(parts[0][1], num_cells)
    edges = np.concatenate(
        [rows[local] for rows, local in parts] or [np.empty((2, 0), np.int64)], axis=1
    )
    if np.any(np.diff(edges[1]) < 0):  # sections are interleaved
        edges = edges[:, np.argsort(edges[1], kind="stable")]
    return edge_index(edges, num_cells)


def plain_edges(edge_index: Tensor) -> Tensor:
    """Edges as an ordinary tensor ``[2, E]``, without the metadata of an ``EdgeIndex``."""
    return edge_index.as_tensor() if isinstance(edge_index, EdgeIndex) else edge_index
