"""Order of cells along a Hilbert curve: neighbours in the tissue are neighbours in memory."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spatiagraph.graph.points import as_points


def hilbert_order(pos: ArrayLike | Tensor, bits: int = 16) -> Tensor:
    """Order of cells along a Hilbert curve through the slide.

    Storing and reading cells in this order keeps tiles of tissue in few, contiguous chunks.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        bits: The curve visits a grid of ``2**bits`` by ``2**bits`` squares; cells in one square
            keep their order.

    Returns:
        Permutation ``[N]``: ``pos[order]`` runs along the curve, and ``order.argsort()`` restores.

    Raises:
        ValueError: ``bits`` is not in 1 to 31.

    Examples:
        >>> hilbert_order([[0, 0], [1, 1], [0, 1], [1, 0]], bits=1).tolist()
        [0, 2, 1, 3]
    """
    if not 1 <= bits <= 31:
        raise ValueError(f"Expected 'bits' from 1 to 31, got {bits}")
    points = as_points(pos)
    if not len(points):
        return torch.empty(0, dtype=torch.long)
    lowest = points.min(axis=0)
    extent = float(np.ptp(points, axis=0).max()) or 1.0
    most = 2**bits - 1
    square = np.minimum((points - lowest) / extent * 2**bits, most).astype(np.int64)
    code = _hilbert_code(square[:, 0], square[:, 1], bits)
    return torch.from_numpy(np.argsort(code, kind="stable"))


def _hilbert_code(x: NDArray[np.int64], y: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Position of squares along the curve, all squares one bit at a time."""
    code = np.zeros_like(x)
    for bit in range(bits - 1, -1, -1):
        side = 1 << bit
        rx, ry = (x & side) > 0, (y & side) > 0
        code += (side * side) * ((3 * rx) ^ ry)
        flip = rx & ~ry  # this quadrant is walked backwards
        x, y = (
            np.where(flip, side - 1 - (x & (side - 1)), x),
            np.where(flip, side - 1 - (y & (side - 1)), y),
        )
        x, y = np.where(ry, x, y), np.where(ry, y, x)  # and the lower two are transposed
    return code
