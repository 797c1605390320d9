"""Delaunay triangulation: neighbours without a number or a distance to choose."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import Delaunay, QhullError
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph.graph.edges import cat_edges
from spatiagraph.graph.points import Points, as_points, slide_rows


def delaunay_graph(
    pos: ArrayLike | Tensor,
    max_um: float | None = None,
    *,
    slide: ArrayLike | Tensor | None = None,
) -> EdgeIndex:
    """Connect cells that share an edge of the Delaunay triangulation.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        max_um: Longest edge in µm; the triangulation spans holes and the outline of the tissue
            with long edges that join no neighbours. ``None`` keeps them.
        slide: Section of each cell, ``[N]``; cells of different sections are never connected.

    Returns:
        Messages neighbour → cell, ``[2, E]``, symmetric, sorted by target, then by source. A cell
        at the very position of another is connected to it alone; cells on one line are connected in
        order.

    Raises:
        ValueError: ``max_um`` is not positive.

    Examples:
        >>> delaunay_graph([[0, 0], [2, 0], [1, 1]]).tolist()
        [[1, 2, 0, 2, 0, 1], [0, 0, 1, 1, 2, 2]]
    """
    if max_um is not None and not max_um > 0:
        raise ValueError(f"Expected 'max_um' above 0, got {max_um}")
    points = as_points(pos)
    parts = []
    for rows in slide_rows(slide, len(points)):
        edges = _triangulate(points[rows])
        if max_um is not None:
            length = np.linalg.norm(points[rows[edges[0]]] - points[rows[edges[1]]], axis=1)
            edges = edges[:, length <= max_um]
        parts.append((rows, edges))
    return cat_edges(parts, len(points))


def _triangulate(points: Points) -> NDArray[np.int64]:
    """Edges of one section, ``[2, E]``."""
    try:
        triangles = Delaunay(points) if len(points) > 2 else None
    except QhullError:
        triangles = None
    if triangles is None:
        pairs = _chain(points)
    else:
        corners = triangles.simplices
        pairs = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
        pairs = np.concatenate([pairs, triangles.coplanar[:, [0, 2]]])  # copies of a position
    num = len(points)
    key = np.concatenate([pairs[:, 1] * num + pairs[:, 0], pairs[:, 0] * num + pairs[:, 1]])
    key = np.unique(key.astype(np.int64))
    return np.stack([key % num, key // num]) if num else np.empty((2, 0), dtype=np.int64)


def _chain(points: Points) -> NDArray[np.int64]:
    """Successive points on a line, which has no triangles."""
    order = np.lexsort((points[:, 1], points[:, 0]))
    return np.stack([order[:-1], order[1:]], axis=1)
