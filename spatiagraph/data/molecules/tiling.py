"""Rectangles that cover a section with about as many molecules each."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BIN_UM = 8.0
"""Side of the bins that molecules are counted in; edges of tiles are edges of bins."""


class Tiling(NamedTuple):
    """Tiles of a section, neighbours mostly one after the other.

    Attributes:
        bins: Bins that hold molecules, as (x, y) numbers of ``BIN_UM`` in one integer, sorted.
        tile: Tile of each.
        sizes: Molecules of each tile, ``[T]``.
    """

    bins: NDArray[np.int64]
    tile: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def of(self, code: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tile of each bin that was counted."""
        return self.tile[np.searchsorted(self.bins, code)]


def bin_codes(x_um: NDArray[np.floating], y_um: NDArray[np.floating]) -> NDArray[np.int64]:
    """Bin of each position, as one integer.

    Args:
        x_um: Positions, ``[M]``.
        y_um: Positions, ``[M]``.
    """
    shift = 2**31  # makes both numbers positive, and is the base of the first
    x, y = (np.floor(v / BIN_UM).astype(np.int64) + shift // 2 for v in (x_um, y_um))
    return x * shift + y


def cut(bins: NDArray[np.int64], count: NDArray[np.int64], most: int) -> Tiling:
    """Halve a section, always along the longer side of what is left, until tiles are small.

    Args:
        bins: Bins that hold molecules, sorted.
        count: Molecules of each.
        most: Molecules of a tile; one bin may hold more.
    """
    x, y = np.divmod(bins, 2**31)
    tile = np.empty(len(bins), dtype=np.int64)
    sizes: list[int] = []
    left = [np.arange(len(bins))] if len(bins) else []
    while left:
        here = left.pop()
        total = int(count[here].sum())
        width, height = np.ptp(x[here]), np.ptp(y[here])
        if total <= most or len(here) == 1:
            tile[here] = len(sizes)
            sizes.append(total)
            continue
        along = (x if width >= height else y)[here]
        order = np.argsort(along, kind="stable")
        along, here = along[order], here[order]
        before = np.cumsum(count[here])
        edges = np.flatnonzero(np.diff(along)) + 1  # a cut goes between bins, never through one
        edge = edges[np.argmin(np.abs(before[edges - 1] - total / 2))]
        left += [here[edge:], here[:edge]]
    return Tiling(bins, tile, np.array(sizes, dtype=np.int64))
