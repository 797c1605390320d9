"""Crops around many cells from one pyramid level, each stored chunk being read once.

Resizing is linear, so the part of a window that lies in one block of chunks adds its share to the
finished crop, and beside the output and what is held of the image only one block is in memory.
"""

from collections.abc import Iterator

import numpy as np
from rich.progress import track

from spatiagraph.data.image.held import HELD
from spatiagraph.data.image.level import Level
from spatiagraph.data.image.resample import add_windows

_BLOCK_PX = 1024  # least side of a block


def window_corners(center: np.ndarray, side: np.ndarray) -> np.ndarray:
    """First row and column of the windows, the centre at most half a pixel off the middle.

    Windows are snapped to whole pixels, so that a crop at the image's own resolution holds its
    exact pixel values. A centre in the middle of a pixel lands in crop pixel ``side // 2``.

    Args:
        center: Row and column of the cells in pixels of the level, ``[n, 2]``; pixel ``i`` covers
            ``[i, i + 1)``.
        side: Sides of the windows in pixels, ``[n]``, not necessarily whole.
    """
    # the small shift keeps exact ties (pixel centres) on one side despite rounding in µm
    return np.ceil(center - side[:, None] / 2 - 0.5 - 1e-6).astype(np.int64)


def snapped_windows(center: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row and column of windows, ``[n, 2]``, and their sides, ``[n]``, as they are read.

    Args:
        center: Row and column of the cells in pixels of the level, ``[n, 2]``.
        side: Sides of the windows in pixels of the level, ``[n]``.
    """
    whole = np.round(side)
    side = np.where(np.isclose(side, whole, rtol=0, atol=1e-6), whole, side)  # 63.9999… is 64
    return window_corners(center, side), side


def add_crops(
    out: np.ndarray,
    index: np.ndarray,
    level: Level,
    value_range: np.ndarray,
    center: np.ndarray,
    side: np.ndarray,
    progress: bool,
) -> None:
    """Add the crops of ``n`` cells to the zeros in ``out[index]``.

    Args:
        out: All crops, ``[N, C, S, S]`` float32.
        index: Rows of ``out`` to fill, ``[n]``.
        level: Where to read.
        value_range: Values that become 0 and 1, per channel, ``[C, 2]``.
        center: Row and column of the cells in pixels of the level, ``[n, 2]``.
        side: Sides of the windows in pixels of the level, ``[n]``.
        progress: Whether to show a progress bar.
    """
    corner, side = snapped_windows(center, side)
    value_range = value_range.astype(np.float32)
    blocks = list(_blocks(corner, np.ceil(side).astype(np.int64), level))
    for cells, rows, columns in track(
        blocks, description="Cropping", disable=not progress, transient=True
    ):
        block = _as_computed(HELD.read(level, rows, columns))  # [h, w, C]
        at = corner[cells] - (rows.start, columns.start)
        add_windows(out, index[cells], block, value_range, at, side[cells])


def _blocks(
    corner: np.ndarray, length: np.ndarray, level: Level
) -> Iterator[tuple[np.ndarray, slice, slice]]:
    """Blocks of whole chunks in storage order: the cells that touch each, the pixels they need.

    Blocks are at least as wide as the widest window, so that a window meets at most four of them.
    """
    image = np.array([level.height, level.width])
    chunk = np.minimum(level.chunk, image)
    least = np.full(2, max(_BLOCK_PX, int(length.max())))
    block = -(-least // chunk) * chunk
    # images stored in strips have chunks as wide as the slide: fewer rows then
    tall = max(int(length.max()), 64, min(_BLOCK_PX, 2**22 // int(min(block[1], image[1]))))
    block[0] = -(-tall // chunk[0]) * chunk[0]

    first = np.maximum(corner, 0) // block  # [n, 2]
    last = (np.minimum(corner + length[:, None], image) - 1) // block
    cell, place = [], []
    for shift in ((0, 0), (0, 1), (1, 0), (1, 1)):
        met = np.flatnonzero((first + shift <= last).all(1))
        cell.append(met)
        place.append(first[met] + shift)
    cells, places = np.concatenate(cell), np.concatenate(place)
    order = np.lexsort((cells, places[:, 1], places[:, 0]))
    cells, places = cells[order], places[order]
    starts = np.flatnonzero(np.r_[True, (places[1:] != places[:-1]).any(1)])
    for members, where in zip(np.split(cells, starts[1:]), places[starts], strict=True):
        low = np.maximum(corner[members].min(0), where * block).clip(0)
        high = np.minimum((corner[members] + length[members, None]).max(0), (where + 1) * block)
        high = np.minimum(high, image)
        yield members, slice(int(low[0]), int(high[0])), slice(int(low[1]), int(high[1]))


def _as_computed(pixels: np.ndarray) -> np.ndarray:
    """Pixels of a type that resizing is compiled for: 8 and 16 bits as they are, else float32."""
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    return pixels.astype(np.float32)
