"""Outlines of cells that a map draws where few enough are in view, packed into a page."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatiagraph.data.outlines import Outlines

_STEPS = 65_535  # of a coordinate, in two bytes


def pack_outlines(outlines: Outlines | None, rows: NDArray[np.int64]) -> dict[str, Any] | None:
    """Corners of the outlines of some cells, two bytes per coordinate.

    Args:
        outlines: Outlines of all cells.
        rows: The cells, ``[N']``.

    Returns:
        Base64 of where the corners of each cell begin (``ptr``, ``uint32``, ``[N' + 1]``) and of
        their x and y (``xy``, ``uint16``), which are ``low`` plus so many ``step`` in µm; ``None``
        where no cell has an outline.
    """
    if outlines is None:
        return None
    own = outlines.select(rows)
    if not len(own.corners):
        return None
    low = own.corners.min(axis=0)
    step = float(np.ptp(own.corners, axis=0).max()) / _STEPS or 1.0
    code = np.round((own.corners - low) / step).astype("<u2")
    return {
        "ptr": _base64(own.ptr.astype("<u4")),
        "xy": _base64(code),
        "low": low.tolist(),
        "step": step,
    }


def _base64(values: NDArray[np.generic]) -> str:
    return base64.b64encode(values.tobytes()).decode()
