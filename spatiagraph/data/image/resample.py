"""Resizing as a pair of matrices: area averages when shrinking, bilinear when enlarging."""

import numpy as np


def resize_weights(side: np.ndarray, num_in: int, num_out: int, *, first: int = 0) -> np.ndarray:
    r"""Weight of every source pixel in every output pixel, along one axis.

    Output pixel :math:`s` covers :math:`[s f, (s + 1) f)` with :math:`f = \text{side} / S`. For
    :math:`f \ge 1` the weights are its overlaps with the source pixels divided by :math:`f`, which
    is exact anti-aliasing; for :math:`f < 1` they interpolate linearly between pixel centres.

    Args:
        side: Lengths of the windows in source pixels, ``[n]``; they start at source coordinate 0.
        num_in: Number of source pixels, :math:`P`.
        num_out: Number of output pixels, :math:`S`.
        first: Coordinate of the first of the source pixels, when only a part of them is at hand.

    Returns:
        ``[n, S, P]`` float32; rows sum to 1 over all source pixels of the window.

    Examples:
        >>> resize_weights(np.array([4.0]), 4, 2)[0]
        array([[0.5, 0.5, 0. , 0. ],
               [0. , 0. , 0.5, 0.5]], dtype=float32)
    """
    factor = (np.asarray(side, dtype=np.float64) / num_out)[:, None, None]  # [n, 1, 1]
    pixel = first + np.arange(num_in, dtype=np.float64)
    step = np.arange(num_out, dtype=np.float64)[:, None]
    overlap = np.minimum((step + 1) * factor, pixel + 1) - np.maximum(step * factor, pixel)
    area = np.clip(overlap, 0, None) / factor
    if (factor >= 1).all():
        return area.astype(np.float32)
    centre = np.clip((step + 0.5) * factor - 0.5, 0, np.ceil(factor * num_out - 1e-6) - 1)
    linear = np.clip(1 - np.abs(pixel - centre), 0, None)
    return np.where(factor >= 1, area, linear).astype(np.float32)


def resize(patches: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Square patches resized along both axes.

    Args:
        patches: ``[C, n, P, P]`` float32.
        weights: ``[n, S, P]``, or ``[1, S, P]`` shared by all patches.

    Returns:
        ``[C, n, S, S]``.
    """
    narrow = patches @ weights.swapaxes(1, 2)  # columns first: [C, n, P, S]
    return weights @ narrow
