"""All neighbours within a distance."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph.graph.build.bins import (
    CROWDED,
    bins_degree,
    bins_radius,
    expected_pairs,
    make_bins,
)
from spatiagraph.graph.build.knn import nearest
from spatiagraph.graph.build.tree import tree_radius
from spatiagraph.graph.edges import cat_edges
from spatiagraph.graph.points import Points, as_points, slide_rows

MAX_EDGES = 2_000_000_000  # 32 GB of edge_index


def radius_graph(
    pos: ArrayLike | Tensor,
    radius_um: float,
    *,
    slide: ArrayLike | Tensor | None = None,
    max_num_neighbors: int | None = None,
) -> EdgeIndex:
    """Connect each cell to all cells at most ``radius_um`` away.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        radius_um: Longest edge in µm; a cell at exactly this distance is connected.
        slide: Section of each cell, ``[N]``; cells of different sections are never connected.
        max_num_neighbors: Keep only so many nearest of each cell (equal distances: the lower row).

    Returns:
        Messages neighbour → cell, ``[2, E]``, sorted by target, then by source. Without
        ``max_num_neighbors`` the graph is symmetric. A cell is not connected to itself.

    Raises:
        ValueError: ``radius_um`` is not positive, or the graph would have more than two billion
            edges (a radius in the wrong unit, most often).

    Examples:
        >>> radius_graph([[0, 0], [1, 0], [3, 0]], radius_um=2).tolist()
        [[1, 0, 2, 1], [0, 1, 1, 2]]
    """
    if not (radius_um > 0 and np.isfinite(radius_um)):
        raise ValueError(f"Expected 'radius_um' above 0, got {radius_um}")
    if max_num_neighbors is not None and max_num_neighbors < 1:
        raise ValueError(f"Expected 'max_num_neighbors' of at least 1, got {max_num_neighbors}")
    points = as_points(pos)
    parts = []
    for rows in slide_rows(slide, len(points)):
        if max_num_neighbors is None:
            edges = _within(points[rows], float(radius_um))
        else:
            edges = _nearest_within(points[rows], float(radius_um), max_num_neighbors)
        parts.append((rows, edges))
    return cat_edges(parts, len(points))


def _within(points: Points, radius: float) -> NDArray[np.int64]:
    """Edges of one section, ``[2, E]``."""
    bins = make_bins(points, radius / 3)
    if bins.crowding > CROWDED and bins.scale * radius < 2:  # clusters far tighter than the bins
        tree = cKDTree(points)
        _refuse_explosion(float(tree.count_neighbors(tree, radius)), len(points), radius)
        return tree_radius(points, radius)
    # Refuse from a glance at the bins first: counting them all would take minutes.
    _refuse_explosion(expected_pairs(points, radius) / 2, len(points), radius)
    degree = bins_degree(bins, radius)
    _refuse_explosion(float(degree.sum()), len(points), radius)
    return bins_radius(bins, radius, degree)


def _refuse_explosion(num_edges: float, num_cells: int, radius: float) -> None:
    if num_edges > MAX_EDGES:
        raise ValueError(
            f"Expected at most {MAX_EDGES:,} edges, got about {num_edges:.2g} "
            f"({num_edges / num_cells:.0f} per cell) for radius_um={radius:g}. Are positions and "
            "radius both in µm? Use a smaller radius, or max_num_neighbors=..."
        )


def _nearest_within(points: Points, radius: float, limit: int) -> NDArray[np.int64]:
    """Edges of one section to at most ``limit`` nearest cells, ``[2, E]``."""
    k = min(limit, len(points) - 1)
    if k < 1:
        return np.empty((2, 0), dtype=np.int64)
    source = nearest(points, k).ravel()
    target = np.repeat(np.arange(len(points)), k)
    offset = points[source] - points[target]
    keep = offset[:, 0] ** 2 + offset[:, 1] ** 2 <= radius * radius
    return np.stack([source[keep], target[keep]])
