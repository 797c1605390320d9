"""Validation of positions: finite, as float64, section by section."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

Points = NDArray[np.float64]
Rows = NDArray[np.int64]


def as_points(pos: ArrayLike | Tensor) -> Points:
    """Positions as a contiguous float64 array.

    Args:
        pos: Cell centres in µm, ``[N, 2]``, from NumPy or torch, on any device.

    Returns:
        ``[N, 2]`` float64, C-contiguous; the input itself when it already is that.

    Raises:
        ValueError: Not ``[N, 2]``, or some coordinates are not finite (the rows are named).

    Examples:
        >>> as_points([[0, 0], [3, 4]])
        array([[0., 0.],
               [3., 4.]])
    """
    array = pos.detach().cpu().numpy() if isinstance(pos, Tensor) else pos
    points = np.ascontiguousarray(array, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"Expected 'pos' of shape [N, 2], got {list(points.shape)}")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise ValueError(
            f"Expected finite positions, got NaN or infinity in {bad.size} of {len(points)} "
            f"rows (first: {bad[:5].tolist()}). Drop those cells"
        )
    return points


def slide_rows(slide: ArrayLike | Tensor | None, num_cells: int) -> list[Rows]:
    """Rows of each section, ascending; one list entry per section.

    Args:
        slide: Section of each cell, ``[N]`` integers or names; ``None`` is one section.
        num_cells: Number of cells, ``N``.

    Raises:
        ValueError: ``slide`` does not have one entry per cell.
    """
    if slide is None:
        return [np.arange(num_cells)] if num_cells else []
    array = slide.detach().cpu().numpy() if isinstance(slide, Tensor) else np.asarray(slide)
    if array.shape != (num_cells,):
        raise ValueError(
            f"Expected 'slide' with one entry for each of {num_cells} cells, "
            f"got shape {list(array.shape)}"
        )
    _, code = np.unique(array, return_inverse=True)
    order = np.argsort(code, kind="stable")
    return np.split(order, np.cumsum(np.bincount(code))[:-1]) if num_cells else []
