"""``HeldPixels``: what was decoded of images last, as it is stored, for crops to be made from."""

import threading
import weakref
from collections import OrderedDict

import numpy as np

from spatiagraph.data.image.level import Level

_SIDE_PX = 64  # least side of what is decoded at a time, so that strips of a row are few


class HeldPixels:
    """Decoded blocks of images in their stored type: 8 bits stay 8 bits.

    Crops overlap, and resizing makes fractions of what was 8 bits; so the pixels are held and not
    the crops, exact and a fraction of the size, and every crop is resized anew. Blocks that were
    not used for longest make room for others.

    Args:
        max_bytes: Most that is held, of all images together.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._blocks: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()
        self._levels: set[int] = set()
        self._lock = threading.RLock()

    def read(self, level: Level, rows: slice, columns: slice) -> np.ndarray:
        """Pixels of a window of a level, ``[h, w, C]``, as :meth:`Level.read` gives them.

        Raises:
            ValueError: If the stored data cannot be decoded.
        """
        if level.in_memory:
            return level.read(rows, columns)
        height, width = (-(-_SIDE_PX // side) * side for side in level.chunk)
        pixels = np.empty(
            (rows.stop - rows.start, columns.stop - columns.start, level.num_channels), level.dtype
        )
        for i in range(rows.start // height, -(-rows.stop // height)):
            for j in range(columns.start // width, -(-columns.stop // width)):
                block = self._block(level, i, j, height, width)
                top, left = i * height, j * width
                bottom, right = top + block.shape[0], left + block.shape[1]
                y = slice(max(rows.start, top), min(rows.stop, bottom))
                x = slice(max(columns.start, left), min(columns.stop, right))
                pixels[
                    y.start - rows.start : y.stop - rows.start,
                    x.start - columns.start : x.stop - columns.start,
                ] = block[y.start - top : y.stop - top, x.start - left : x.stop - left]
        return pixels

    def _block(self, level: Level, i: int, j: int, height: int, width: int) -> np.ndarray:
        key = (id(level), i, j)
        with self._lock:
            block = self._blocks.get(key)
            if block is not None:
                self._blocks.move_to_end(key)
                self._make_room()
                return block
        top, left = i * height, j * width
        rows = slice(top, min(top + height, level.height))
        block = level.read(rows, slice(left, min(left + width, level.width)))
        block = np.ascontiguousarray(block)
        with self._lock:
            if key not in self._blocks and block.nbytes <= self.max_bytes:
                if id(level) not in self._levels:  # its number may be another's after its end
                    self._levels.add(id(level))
                    weakref.finalize(level, self._forget, id(level))
                self._blocks[key] = block
                self.num_bytes += block.nbytes
                self._make_room()
        return block

    def _make_room(self) -> None:
        while self.num_bytes > self.max_bytes:
            self.num_bytes -= self._blocks.popitem(last=False)[1].nbytes

    def _forget(self, level: int) -> None:
        with self._lock:
            self._levels.discard(level)
            for key in [key for key in self._blocks if key[0] == level]:
                self.num_bytes -= self._blocks.pop(key).nbytes


HELD = HeldPixels(1024**3)
"""Pixels of all images of this process; ``HELD.max_bytes`` may be set."""
