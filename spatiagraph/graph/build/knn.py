"""Nearest neighbours."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph.graph.build.bins import CROWDED, bins_knn, even_bins
from spatiagraph.graph.build.tree import tree_knn
from spatiagraph.graph.edges import neighbors_to_edge_index
from spatiagraph.graph.points import Points, as_points, slide_rows


def knn_graph(
    pos: ArrayLike | Tensor,
    k: int,
    *,
    slide: ArrayLike | Tensor | None = None,
    include_self: bool = False,
) -> EdgeIndex:
    """Connect each cell to its ``k`` nearest cells.

    Distances are exact (float64); of equally distant cells the one with the lower row wins, so
    the graph is the same on every machine. Cells at equal positions are neighbours like any others.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        k: Neighbours of each cell, not counting itself.
        slide: Section of each cell, ``[N]``; cells of different sections are never connected.
        include_self: Also join each cell to itself (``k + 1`` incoming edges).

    Returns:
        Messages neighbour → cell, ``[2, N·k]``, sorted by target, then by source.

    Raises:
        ValueError: ``k`` is below 1, or some section has no more than ``k`` cells.

    Examples:
        >>> knn_graph([[0, 0], [1, 0], [3, 0]], k=1).tolist()
        [[1, 0, 1], [0, 1, 2]]
    """
    points = as_points(pos)
    if k < 1:
        raise ValueError(f"Expected 'k' of at least 1, got {k}")
    sections = slide_rows(slide, len(points))
    smallest = min((len(rows) for rows in sections), default=0)
    if k >= smallest:
        raise ValueError(
            f"Expected 'k' below the number of cells of every slide, got k={k} for a slide of "
            f"{smallest} cells. Use a smaller 'k', or leave that slide out"
        )
    neighbors = np.empty((len(points), k), dtype=np.int64)
    for rows in sections:
        if len(sections) == 1:
            neighbors = nearest(points, k)  # saves two copies of the table
        else:
            neighbors[rows] = rows[nearest(points[rows], k)]
    if include_self:
        own = np.arange(len(points))[:, None]
        neighbors = np.sort(np.concatenate([neighbors, own], axis=1), axis=1)
    return neighbors_to_edge_index(neighbors)


def nearest(points: Points, k: int) -> NDArray[np.int64]:
    """The ``k`` nearest other points of each point, ``[N, k]``, ascending in each row.

    Bins answer where points are spread about evenly, a k-d tree where they are not.
    """
    bins = even_bins(points, per_bin=max(2.0, k / 4))
    if bins.crowding > CROWDED:
        return tree_knn(points, k, np.arange(len(points)))
    neighbors, unanswered = bins_knn(bins, k)
    if unanswered.size:
        neighbors[unanswered] = tree_knn(points, k, unanswered)
    return neighbors
