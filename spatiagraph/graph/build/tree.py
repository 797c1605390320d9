"""Neighbour search in scipy's k-d tree: for point sets that bins serve badly.

Slower than :mod:`spatiagraph.graph.build.bins` on tissue, but indifferent to how unevenly the
points lie. Both give the same answer, equal distances going to the lower index.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spatiagraph.graph.points import Points, Rows


def tree_knn(points: Points, k: int, rows: Rows, workers: int = 1) -> NDArray[np.int64]:
    """The ``k`` nearest other points of some points.

    Args:
        points: ``[N, 2]``.
        k: Neighbours of each point, below ``N``.
        rows: Which points to answer for, ``[R]``.
        workers: Threads.

    Returns:
        ``[R, k]``, ascending in each row.
    """
    candidates = _without_useless_copies(points, k)
    tree = cKDTree(points[candidates])
    num = min(k + 2, len(candidates))  # itself, k neighbours, and one more to see a tie
    _, local = tree.query(points[rows], k=num, workers=workers)
    found = candidates[np.asarray(local).reshape(len(rows), num)]
    squared = _squared(points, rows, found)
    squared[found == rows[:, None]] = np.inf  # never its own neighbour
    order = np.lexsort((found, squared), axis=1)
    found = np.take_along_axis(found, order, axis=1)
    squared = np.take_along_axis(squared, order, axis=1)
    result = found[:, :k]
    # The tree cuts off a group of equal distances anywhere: look at all of the group.
    limit = squared[:, k - 1]
    last = np.where(np.isinf(squared[:, -1]), squared[:, -2], squared[:, -1])
    for i in np.flatnonzero(last <= limit * (1 + 1e-12)):
        radius = np.sqrt(limit[i]) * (1 + 1e-9)
        ball = candidates[tree.query_ball_point(points[rows[i]], radius)]
        ball = ball[ball != rows[i]]
        d = _squared(points, rows[i : i + 1], ball[None])[0]
        result[i] = ball[np.lexsort((ball, d))[:k]]
    return np.sort(result, axis=1)


def tree_radius(points: Points, radius: float) -> NDArray[np.int64]:
    """All ordered pairs of points at most ``radius`` apart, ``[2, E]``, sorted by target."""
    tree = cKDTree(points)
    pairs = tree.query_pairs(radius * (1 + 1e-9), output_type="ndarray").astype(np.int64)
    difference = points[pairs[:, 0]] - points[pairs[:, 1]]
    pairs = pairs[difference[:, 0] ** 2 + difference[:, 1] ** 2 <= radius * radius]
    edges = np.concatenate([pairs, pairs[:, ::-1]]).T
    return np.ascontiguousarray(edges[:, np.lexsort((edges[0], edges[1]))])


def _squared(points: Points, rows: Rows, found: NDArray[np.int64]) -> NDArray[np.float64]:
    """Squared distances ``[R, K]``, rounded as in the bins."""
    difference = points[found] - points[rows][:, None]
    return difference[..., 0] ** 2 + difference[..., 1] ** 2


def _without_useless_copies(points: Points, k: int) -> Rows:
    """Rows that can be a neighbour at all: the ``k + 1`` lowest of each position.

    Without this, a pile of equal positions would be one tie as large as the pile.
    """
    order = np.lexsort((points[:, 1], points[:, 0]))  # stable: copies stay ascending
    new = np.any(np.diff(points[order], axis=0) != 0, axis=1)
    start = np.concatenate([[0], np.flatnonzero(new) + 1])
    length = np.diff(np.append(start, len(points)))
    rank = np.arange(len(points)) - np.repeat(start, length)
    return np.sort(order[rank <= k])
