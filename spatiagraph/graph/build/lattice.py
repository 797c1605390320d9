"""Rings of neighbours on a capture array."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, eye_array
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph.graph.build.knn import nearest
from spatiagraph.graph.edges import cat_edges
from spatiagraph.graph.points import Points, as_points, slide_rows

_NEIGHBORS = {"hex": 6, "square": 4}
_STEP = 1.3  # a step is shorter than this many pitches: the next distances are 1.41 and 1.73


def grid_graph(
    pos: ArrayLike | Tensor,
    *,
    num_rings: int = 1,
    kind: Literal["hex", "square"] | None = None,
    slide: ArrayLike | Tensor | None = None,
) -> EdgeIndex:
    """Connect each spot of a regular array to the rings of spots around it.

    One step goes to the 6 (Visium) or 4 (square array) adjacent spots; ``num_rings`` steps through
    spots that exist. An inner spot of a hexagonal array has 6, 18, 36 neighbours for 1, 2, 3 rings,
    one of a square array 4, 12, 24.

    Args:
        pos: Spot centres in µm, ``[N, 2]``.
        num_rings: Steps.
        kind: ``"hex"`` or ``"square"``; by default whichever the spots of each section form.
        slide: Section of each spot, ``[N]``; spots of different sections are never connected.

    Returns:
        Messages neighbour → spot, ``[2, E]``, sorted by target, then by source.

    Raises:
        ValueError: ``num_rings`` below 1, an unknown ``kind``, or positions that are no lattice.

    Examples:
        >>> grid_graph([[0, 0], [1, 0], [2, 0], [0, 1]]).tolist()
        [[1, 3, 0, 2, 1, 0], [0, 0, 1, 1, 2, 3]]
    """
    if num_rings < 1:
        raise ValueError(f"Expected 'num_rings' of at least 1, got {num_rings}")
    if kind is not None and kind not in _NEIGHBORS:
        raise ValueError(f'Expected \'kind\' "hex" or "square", got {kind!r}')
    points = as_points(pos)
    parts = []
    for rows in slide_rows(slide, len(points)):
        parts.append((rows, _rings(_steps(points[rows], kind), num_rings)))
    return cat_edges(parts, len(points))


def _steps(points: Points, kind: str | None) -> csr_array:
    """Adjacent spots of each spot, ``[N, N]``."""
    num = len(points)
    k = min(_NEIGHBORS["hex"], num - 1)
    if k < 1:
        return csr_array((num, num))
    neighbors = nearest(points, k)
    offset = points[neighbors] - points[:, None]
    distance = np.hypot(offset[..., 0], offset[..., 1])
    pitch = distance.min(axis=1)
    low, high = np.quantile(pitch, [0.1, 0.9])
    if high > 2 * low or low == 0:
        raise ValueError(
            "Expected spots on a regular lattice, got nearest-neighbour distances from "
            f"{low:.3g} to {high:.3g} (10 % and 90 % quantiles). Use knn_graph or delaunay_graph"
        )
    step = distance < _STEP * np.median(pitch)
    if kind is None:
        kind = "hex" if np.mean(step.sum(axis=1) > 4) > 0.05 else "square"
    if kind == "square" and k > 4:
        rank = distance.argsort(axis=1, kind="stable").argsort(axis=1)
        step &= rank < 4
    target, column = np.nonzero(step)
    return csr_array((np.ones(len(target), np.int8), (target, neighbors[step])), (num, num))


def _rings(step: csr_array, num_rings: int) -> NDArray[np.int64]:
    """Edges to the spots that at most ``num_rings`` steps lead to, ``[2, E]``."""
    num = step.shape[0]
    walk = (step + eye_array(num, dtype=np.int8, format="csr")).astype(bool)
    reached = walk
    for _ in range(num_rings - 1):
        reached = (reached @ walk).astype(bool)
    reached.sort_indices()
    target = np.repeat(np.arange(num), np.diff(reached.indptr))
    source = reached.indices.astype(np.int64)
    keep = source != target
    return np.stack([source[keep], target[keep]])
