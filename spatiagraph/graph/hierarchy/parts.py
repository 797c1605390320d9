"""Compact parts of about equal size: what a transformer can look at in one go."""

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spatiagraph.graph.points import Points, Rows, as_points, slide_rows


def kd_parts(
    pos: ArrayLike | Tensor, max_cells: int = 1000, *, slide: ArrayLike | Tensor | None = None
) -> Tensor:
    """Part of the slide that each cell belongs to, by recursive halving.

    A part of more than ``max_cells`` cells is cut at the median along its longer principal axis.
    The cuts turn with the tissue: rotating, moving or mirroring a section gives the same parts
    (where no two cells tie).

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        max_cells: Most cells of a part, ``m``.
        slide: Section of each cell, ``[N]``; a part never holds cells of two sections.

    Returns:
        ``[N]`` integers in ``[0, P)``. Parts of a section that was cut have between ``m/2`` and
        ``m`` cells; neighbouring numbers are neighbouring parts.

    Raises:
        ValueError: ``max_cells`` is below 1.

    Examples:
        >>> kd_parts([[0, 0], [1, 0], [2, 0], [3, 0]], max_cells=2).tolist()
        [0, 0, 1, 1]
    """
    if max_cells < 1:
        raise ValueError(f"Expected 'max_cells' of at least 1, got {max_cells}")
    points = as_points(pos)
    pieces: list[Rows] = []
    for rows in slide_rows(slide, len(points)):
        pieces += _halve(points[rows], rows, max_cells)
    return _number(pieces, len(points))


def sub_slices(
    pos: ArrayLike | Tensor,
    max_cells: int = 1000,
    *,
    mode: Literal["kd", "grid"] = "kd",
    slide: ArrayLike | Tensor | None = None,
) -> Tensor:
    r"""Sub-slices of SToFM (`arXiv:2507.11588 <https://arxiv.org/abs/2507.11588>`_).

    ``mode="grid"`` cuts as the published code does: with :math:`q = \lfloor n/m \rfloor + 1` and a
    bounding box :math:`X \times Y`, squares of side :math:`\sqrt{XY/q}` from the lowest corner; a
    square of ``2m`` cells or more is chopped in order of rows. It leaves slivers at the far edges
    and depends on the orientation, which ``mode="kd"`` (:func:`kd_parts`) does not.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        max_cells: Cells aimed at, ``m``.
        mode: ``"kd"`` or ``"grid"``.
        slide: Section of each cell, ``[N]``.

    Returns:
        ``[N]`` integers in ``[0, P)``.

    Raises:
        ValueError: ``max_cells`` is below 1, or ``mode`` is unknown.
    """
    if mode == "kd":
        return kd_parts(pos, max_cells, slide=slide)
    if mode != "grid":
        raise ValueError(f'Expected \'mode\' "kd" or "grid", got {mode!r}')
    if max_cells < 1:
        raise ValueError(f"Expected 'max_cells' of at least 1, got {max_cells}")
    points = as_points(pos)
    pieces: list[Rows] = []
    for rows in slide_rows(slide, len(points)):
        pieces += [rows[piece] for piece in _squares(points[rows], max_cells)]
    return _number(pieces, len(points))


def _number(pieces: list[Rows], num_cells: int) -> Tensor:
    """Number of the piece of each cell."""
    part = np.empty(num_cells, dtype=np.int64)
    for number, rows in enumerate(pieces):
        part[rows] = number
    return torch.from_numpy(part)


def _halve(points: Points, rows: Rows, max_cells: int) -> list[Rows]:
    """Rows of each part, the two halves of a cut one after the other."""
    if len(rows) <= max_cells:
        return [rows]
    lower = _lower_half(points)
    return _halve(points[lower], rows[lower], max_cells) + _halve(
        points[~lower], rows[~lower], max_cells
    )


def _lower_half(points: Points) -> NDArray[np.bool_]:
    """Which points lie below the median along the longer principal axis: half of them, exactly."""
    centered = points - points.mean(axis=0)
    (xx, xy), (_, yy) = centered.T @ centered
    angle = 0.5 * math.atan2(2 * xy, xx - yy)
    axis = np.array([math.cos(angle), math.sin(angle)])
    along = _skewed_up(centered @ axis)
    half = len(points) // 2
    cut = np.partition(along, half)[half]
    tie = 1e-9 * (np.abs(cut) + math.sqrt((xx + yy) / len(points)))
    lower = along < cut - tie
    # Cells on the cut (a row of a lattice) are divided along it, not by their order in memory.
    on_cut = np.flatnonzero(np.abs(along - cut) <= tie)
    across = _skewed_up(centered @ np.array([-axis[1], axis[0]]))[on_cut]
    lower[on_cut[np.argsort(across, kind="stable")[: half - int(lower.sum())]]] = True
    return lower


def _skewed_up(projection: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fix the sign of an axis, which mathematics leaves open, by the longer tail of the cells."""
    return projection if (projection**3).sum() >= 0 else -projection


def _squares(points: Points, size: int) -> list[Rows]:
    """Rows of the non-empty square tiles of one section, row by row."""
    if len(points) <= size:
        return [np.arange(len(points))]
    lowest, extent = points.min(axis=0), np.ptp(points, axis=0)
    number, longest = len(points) // size + 1, float(extent.max())
    if extent.min() < longest / len(points):  # a line has no squares
        side = longest / number
    else:
        side = math.sqrt(float(extent.prod()) / number) or 1.0
    tile = np.floor((points - lowest) / side).astype(np.int64)
    _, code = np.unique(tile, axis=0, return_inverse=True)
    code = code.reshape(-1)
    order = np.argsort(code, kind="stable")
    pieces = []
    for rows in np.split(order, np.cumsum(np.bincount(code))[:-1]):
        chunks = len(rows) // size if len(rows) >= 2 * size else 1
        pieces += np.array_split(rows, chunks)
    return pieces
