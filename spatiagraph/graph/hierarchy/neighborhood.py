"""Niches as the surroundings of each cell; they overlap."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph.graph.build.knn import nearest
from spatiagraph.graph.build.radius import radius_graph
from spatiagraph.graph.build.tree import tree_knn
from spatiagraph.graph.edges import cat_edges, plain_edges
from spatiagraph.graph.points import Points, Rows, as_points, slide_rows

_ROUNDING = 1 + 1e-9  # lattice distances are equal only up to the last digits
_MOST = 256  # candidates beyond k that are looked at; lattices have far fewer of one distance


def neighborhood_niches(
    pos: ArrayLike | Tensor,
    k: int = 6,
    *,
    mode: Literal["knn", "box", "radius"] = "knn",
    max_ratio: float | None = 1.5,
    max_um: float | None = None,
    box_um: float = 200.0,
    radius_um: float = 27.0,
    slide: ArrayLike | Tensor | None = None,
) -> EdgeIndex:
    """One niche around each cell: the cell and its neighbours.

    The niche of ST-Align (`arXiv:2411.16793 <https://arxiv.org/abs/2411.16793>`_): a spot and its
    six nearest. Neighbours farther than ``max_ratio`` times the section's median nearest-neighbour
    distance are left out, so that niches at edges and holes are smaller, not farther away. Mean
    aggregation over these edges gives the niche profile.

    Of neighbours that are equally far up to rounding, as on a square lattice, those of lower rows
    are taken: niches stay the same if the section is moved, turned or mirrored, and may be others
    if its rows are in another order.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        k: Neighbours at most, not counting the cell itself; a section of fewer cells gives fewer.
        mode: ``"knn"``; ``"box"``: all cells in the closed, axis-aligned square of side
            ``box_um`` around the cell; or ``"radius"``: all cells at most ``radius_um`` away (for
            both, ``k``, ``max_ratio`` and ``max_um`` play no part).
        max_ratio: Longest edge in units of the median nearest-neighbour distance; ``None`` for
            no limit.
        max_um: Longest edge in µm; ``None`` for no limit.
        box_um: Side of the square.
        radius_um: Radius of the circle.
        slide: Section of each cell, ``[N]``; niches do not reach into other sections.

    Returns:
        Members → niches, ``[2, P]``, sorted by niche, then by cell. Niche ``i`` is that of cell
        ``i`` and holds it, so there are ``N`` niches.

    Raises:
        ValueError: ``k`` below 1, a limit that is not positive, or an unknown ``mode``.

    Examples:
        >>> neighborhood_niches([[0, 0], [1, 0], [2, 0], [9, 0]], k=2).tolist()
        [[0, 1, 0, 1, 2, 1, 2, 3], [0, 0, 1, 1, 1, 2, 2, 3]]
    """
    if k < 1:
        raise ValueError(f"Expected 'k' of at least 1, got {k}")
    limits = {"max_ratio": max_ratio, "max_um": max_um, "box_um": box_um, "radius_um": radius_um}
    for name, value in limits.items():
        if value is not None and not value > 0:
            raise ValueError(f"Expected '{name}' above 0, got {value}")
    if mode not in ("knn", "box", "radius"):
        raise ValueError(f'Expected \'mode\' "knn", "box" or "radius", got {mode!r}')
    points = as_points(pos)
    parts = []
    for rows in slide_rows(slide, len(points)):
        section = points[rows]
        if mode == "box":
            edges = _box(section, box_um)
        elif mode == "radius":
            edges = _with_own(plain_edges(radius_graph(section, radius_um)).numpy(), len(section))
        else:
            edges = _nearest(section, min(k, len(rows) - 1), max_ratio, max_um)
        parts.append((rows, edges))
    return cat_edges(parts, len(points))


def _nearest(
    points: Points, k: int, max_ratio: float | None, max_um: float | None
) -> NDArray[np.int64]:
    """Members → niches of one section, ``[2, P]``."""
    own = np.arange(len(points))[:, None]
    neighbors = _nearest_by_row(points, k) if k else np.empty((len(points), 0), np.int64)
    offset = points[neighbors] - points[:, None]
    distance = np.hypot(offset[..., 0], offset[..., 1])
    limit = np.inf if max_um is None else max_um
    if max_ratio is not None and k:
        limit = min(limit, max_ratio * float(np.median(distance.min(axis=1))))
    members = np.concatenate([own, np.where(distance <= limit * _ROUNDING, neighbors, -1)], axis=1)
    members.sort(axis=1)
    keep = members >= 0
    niche = np.broadcast_to(own, members.shape)
    return np.stack([members[keep], niche[keep]])


def _nearest_by_row(points: Points, k: int) -> NDArray[np.int64]:
    """The ``k`` nearest others, of those equal up to rounding the lower rows, ``[N, k]``."""
    num = len(points)
    if k == num - 1:
        return nearest(points, k)
    found = np.empty((num, k), np.int64)
    rows, wide, widest = np.arange(num), k + 1, min(k + _MOST, num - 1)
    candidates = nearest(points, wide)  # one more to see a tie
    while True:
        found[rows], is_open = _first(points, rows, candidates, k)
        rows = rows[is_open]
        if not rows.size or wide == widest:
            return found
        wide = min(2 * wide, widest)
        candidates = tree_knn(points, wide, rows)


def _first(
    points: Points, rows: Rows, candidates: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The first ``k`` candidates of some points, and whether others may be as near as the last."""
    offset = points[candidates] - points[rows][:, None]
    distance = np.hypot(offset[..., 0], offset[..., 1])
    order = distance.argsort(axis=1, kind="stable")
    distance = np.take_along_axis(distance, order, axis=1)
    candidates = np.take_along_axis(candidates, order, axis=1)
    group = np.zeros(candidates.shape, np.int64)
    np.cumsum(distance[:, 1:] > distance[:, :-1] * _ROUNDING, axis=1, out=group[:, 1:])
    tied = np.flatnonzero(group[:, k] == group[:, k - 1])
    order = np.lexsort((candidates[tied], group[tied]), axis=1)
    candidates[tied] = np.take_along_axis(candidates[tied], order, axis=1)
    # equal positions are not rounded: of them the lower rows are here already
    is_open = (group[:, -1] == group[:, k - 1]) & (distance[:, k - 1] > 0)
    return candidates[:, :k], is_open


def _with_own(edges: NDArray[np.int64], num_cells: int) -> NDArray[np.int64]:
    """The same edges, sorted by target and then by source, with one from each cell to itself."""
    own = np.arange(num_cells)
    source, target = np.concatenate([edges, np.stack([own, own])], axis=1)
    order = np.lexsort((source, target))
    return np.stack([source[order], target[order]])


def _box(points: Points, box_um: float) -> NDArray[np.int64]:
    """Members → niches of one section, ``[2, P]``."""
    from scipy.spatial import cKDTree

    half = box_um / 2 * _ROUNDING
    pairs = cKDTree(points).query_pairs(half, p=np.inf, output_type="ndarray")
    edges = np.concatenate([pairs, pairs[:, ::-1]]).T.astype(np.int64)
    return _with_own(edges, len(points))
