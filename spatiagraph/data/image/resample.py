"""Resizing of windows: area averages when shrinking, linear interpolation when enlarging.

Compiled, because a crop is too small for BLAS to pay and windows differ from cell to cell.
"""

import numpy as np
from numba import njit
from scipy.sparse import csr_array


@njit(cache=True, nogil=True)
def _taps(side: float, first: np.ndarray, weight: np.ndarray) -> int:
    """Source pixels that each output pixel is made of; returns the window's length in pixels."""
    size, num_taps = weight.shape
    factor = side / size
    length = int(np.ceil(side))
    weight[:] = 0
    for s in range(size):
        if factor >= 1:
            low, high = s * factor, (s + 1) * factor
            first[s] = int(low)
            for k in range(num_taps):
                p = first[s] + k
                if p < length:
                    weight[s, k] = max(0.0, min(high, p + 1) - max(low, p)) / factor
        else:
            at = min(max((s + 0.5) * factor - 0.5, 0.0), length - 1.0)
            first[s] = int(at)
            weight[s, 0] = 1 - (at - first[s])
            weight[s, 1] = at - first[s]
    return length


@njit(cache=True, nogil=True, error_model="numpy")
def add_windows(
    out: np.ndarray,
    index: np.ndarray,
    block: np.ndarray,
    value_range: np.ndarray,
    corner: np.ndarray,
    side: np.ndarray,
) -> None:
    r"""Add to each crop what the block contributes to it.

    Output pixel :math:`s` covers :math:`[s f, (s + 1) f)` of the window, with
    :math:`f = \text{side} / S`. For :math:`f \ge 1` it is the mean over that area, which is exact
    anti-aliasing; for :math:`f < 1` it is interpolated linearly between pixel centres. Both are
    linear in the pixels, so blocks that tile a window add up to its crop.

    Args:
        out: All crops, ``[N, C, S, S]`` float32.
        index: Crops to add to, ``[n]``.
        block: Pixels ``[h, w, C]`` as they are stored; what lies outside counts as 0.
        value_range: Values that become 0 and 1, per channel, ``[C, 2]`` float32.
        corner: First row and column of the windows in the block, ``[n, 2]``; may be negative.
        side: Sides of the windows in pixels, ``[n]``, not necessarily whole.
    """
    height, width, num_channels = block.shape
    size = out.shape[2]
    longest = int(np.ceil(side.max()))
    first = np.empty(size, np.int64)
    weight = np.empty((size, max(2, int(np.ceil(side.max() / size)) + 1)), np.float32)
    num_taps = weight.shape[1]
    span = longest + num_taps  # taps may look past the window's end
    window = np.empty((span, span), np.float32)
    rows = np.empty((size, span), np.float32)
    turned = np.empty((span, size), np.float32)  # inner loops run along memory, so they vectorise
    finished = np.empty((size, size), np.float32)
    for i in range(len(index)):
        if i == 0 or side[i] != side[i - 1]:
            length = _taps(side[i], first, weight)
        top, left = corner[i]
        y0, y1 = max(0, -top), min(length, height - top)
        x0, x1 = max(0, -left), min(length, width - left)
        for c in range(num_channels):
            low, high = value_range[c]
            window[:] = 0
            for y in range(y0, y1):
                stored, line = block[top + y, left + x0 :, c], window[y, x0:]
                for x in range(x1 - x0):
                    value = (np.float32(stored[x]) - low) / (high - low)
                    line[x] = min(max(value, np.float32(0)), np.float32(1))
            crop = out[index[i], c]
            if side[i] == size:  # nothing to resize
                crop += window[:size, :size]
                continue
            rows[:] = 0
            for s in range(size):
                for k in range(num_taps):
                    if weight[s, k] > 0:
                        _add(rows[s], weight[s, k], window[first[s] + k])
            turned[:] = rows.T
            finished[:] = 0
            for t in range(size):
                for k in range(num_taps):
                    _add(finished[t], weight[t, k], turned[first[t] + k])
            crop += finished.T


@njit(cache=True, nogil=True)
def _add(to: np.ndarray, share: float, what: np.ndarray) -> None:
    for x in range(len(to)):
        to[x] += share * what[x]


def area_weights(num_in: int, num_out: int, first: int, last: int) -> csr_array:
    """Share of some source pixels in each output pixel, ``[num_out, last - first]``.

    Args:
        num_in: Source pixels along the axis, at least ``num_out``.
        num_out: Output pixels along the axis.
        first: First source pixel of the part at hand.
        last: One past its last source pixel.

    Examples:
        >>> area_weights(4, 2, 0, 3).toarray()
        array([[0.5, 0.5, 0. ],
               [0. , 0. , 0.5]], dtype=float32)
    """
    factor = num_in / num_out
    pixel = np.arange(first, last)
    begin = np.minimum((pixel / factor).astype(np.int64), num_out - 1)
    inside = np.clip((begin + 1) * factor - pixel, 0, 1)  # the rest lies in the next output pixel
    row = np.concatenate([begin, np.minimum(begin + 1, num_out - 1)])
    share = (np.concatenate([inside, 1 - inside]) / factor).astype(np.float32)
    place = (row, np.tile(pixel - first, 2))
    weights = csr_array((share, place), shape=(num_out, last - first))
    weights.eliminate_zeros()
    return weights
