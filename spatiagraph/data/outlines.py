"""Outlines of the cells of a slide, and which pixels of their crops lie inside of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Mask = Literal["cell", "neighbors"]
"""Part of a crop that is blackened: all but the cell, or only its neighbours."""
_FLAT = 1e-9  # area over the square of the longest side: less is rounding


@dataclass(frozen=True)
class Outlines:
    """One polygon per cell, in µm; some cells may have none.

    Attributes:
        corners: x and y of the corners, those of a cell in a row, ``[V, 2]`` float64. A polygon
            closes by itself.
        ptr: Where the corners of each cell begin, and their number at the end, ``[N + 1]``.

    Examples:
        >>> square = pd.DataFrame({"cell_id": "a", "x_um": [0, 4, 4, 0], "y_um": [0, 0, 2, 2]})
        >>> outlines = Outlines.from_table(square, ["a", "b"])
        >>> outlines.known, outlines.areas_um2[0], outlines.boxes[0]
        (array([ True, False]), np.float64(8.0), array([0., 0., 4., 2.]))
    """

    corners: NDArray[np.float64]
    ptr: NDArray[np.int64]

    @classmethod
    def from_table(cls, table: pd.DataFrame, cells: Sequence[str] | pd.Index) -> "Outlines":
        """Outlines of some cells from a table of corners.

        Args:
            table: A row per corner: ``cell_id``, ``x_um`` and ``y_um``, those of a cell in order.
            cells: Ids of the cells, ``[N]``; outlines of others are left out, and those without an
                area (a line, a point, a figure of eight).

        Raises:
            ValueError: A corner is no place, or no outline with an area is of one of the cells.
        """
        xy = table[["x_um", "y_um"]].to_numpy(np.float64)
        bad = np.flatnonzero(~np.isfinite(xy).all(axis=1))
        if len(bad):
            raise ValueError(
                f"Expected corners of outlines as finite numbers, got none in {len(bad)} of "
                f"{len(xy)} rows (first: {bad[:5].tolist()}). Drop these outlines"
            )
        row = pd.Index(cells).get_indexer(pd.Index(table["cell_id"].astype(str)))
        if not (row >= 0).any():
            have, wanted = (
                ", ".join(map(repr, pd.unique(pd.Series(names))[:3].tolist()))
                for names in (table["cell_id"], cells)
            )
            raise ValueError(
                f"Expected outlines of the cells ({wanted}, …), got those of others ({have}, …). "
                "Outlines and cells must be named alike"
            )
        order = np.argsort(row, kind="stable")
        order = order[row[order] >= 0]
        ptr = np.searchsorted(row[order], np.arange(len(cells) + 1))
        few = np.flatnonzero(np.isin(np.diff(ptr), (1, 2)))
        if len(few):
            raise ValueError(
                f"Expected at least 3 corners per outline, got fewer for cell "
                f"{list(cells)[few[0]]!r} and {len(few) - 1} others. Drop these outlines"
            )
        found = cls(xy[order], ptr.astype(np.int64))
        return found._with_area()

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def _with_area(self) -> "Outlines":
        """Those that enclose anything, rounding apart; the others' cells have none."""
        side = (self.boxes[:, 2:] - self.boxes[:, :2]).max(axis=1)
        flat = self.known & ~(self.areas_um2 > _FLAT * side**2)
        if not flat.any():
            return self
        if flat.sum() == self.known.sum():
            raise ValueError(
                f"Expected outlines with an area, got none in all {int(flat.sum())}. Are their "
                "corners in order?"
            )
        length = np.diff(self.ptr)
        kept = np.where(flat, 0, length)
        ptr = np.concatenate([[0], kept.cumsum()]).astype(np.int64)
        return Outlines(self.corners[np.repeat(~flat, length)], ptr)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Cells that have an outline, ``[N]``."""
        return np.diff(self.ptr) > 0

    @cached_property
    def boxes(self) -> NDArray[np.float64]:
        """Box of each outline: x0, y0, x1, y1 in µm, ``[N, 4]``; NaN without one."""
        boxes = np.full((len(self), 4), np.nan)
        known = self.known
        if known.any():
            starts = self.ptr[:-1][known]
            boxes[known, :2] = np.minimum.reduceat(self.corners, starts)
            boxes[known, 2:] = np.maximum.reduceat(self.corners, starts)
        return boxes

    @cached_property
    def areas_um2(self) -> NDArray[np.float64]:
        """Area of each outline, ``[N]`` (shoelace formula); NaN without one."""
        cell = np.repeat(np.arange(len(self)), np.diff(self.ptr))
        x, y = (self.corners - self.boxes[cell, :2]).T  # from the corner, against cancellation
        following = np.arange(1, len(cell) + 1)
        following[self.ptr[1:][self.known] - 1] = self.ptr[:-1][self.known]
        cross = x * y[following] - x[following] * y
        area = np.abs(np.bincount(cell, cross, minlength=len(self))) / 2
        return np.where(self.known, area, np.nan)

    def half_sides_um(self, pos: NDArray[np.float64]) -> NDArray[np.float64]:
        """Largest distance from each centre to the four sides of its outline's box, ``[N]``, in µm.

        Args:
            pos: Centres in µm, ``[N, 2]``.
        """
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        return np.abs(np.concatenate([pos - low, high - pos], axis=1)).max(axis=1)

    def around(self, pos: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Cells whose centre lies in the box of their outline, or that have none, ``[N]``.

        Args:
            pos: Centres in µm, ``[N, 2]``.
        """
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        return np.asarray(((pos >= low) & (pos <= high)).all(axis=1) | ~self.known)

    def select(self, rows: NDArray[np.generic] | slice) -> "Outlines":
        """Outlines of some of the cells, in their order.

        Args:
            rows: Row numbers, a slice or a mask ``[N]``.
        """
        chosen = np.arange(len(self))[rows]
        length = np.diff(self.ptr)[chosen]
        ptr = np.concatenate([[0], length.cumsum()])
        at = np.repeat(self.ptr[chosen] - ptr[:-1], length) + np.arange(ptr[-1])
        return Outlines(self.corners[at], ptr)

    def inside(
        self, cells: NDArray[np.int64], windows: NDArray[np.float64], size_px: int
    ) -> NDArray[np.bool_]:
        """Pixels of the crop of each cell whose middle lies inside of its outline, ``[B, S, S]``.

        Args:
            cells: Rows of the cells, ``[B]``.
            windows: x and y of the crops' first corner and their side, in µm, ``[B, 3]``.
            size_px: Side of the crops in pixels, :math:`S`.
        """
        own = np.arange(len(cells) + 1)
        return _filled(self.corners, self.ptr, cells, own, windows, size_px)

    def inside_others(
        self, cells: NDArray[np.int64], windows: NDArray[np.float64], size_px: int
    ) -> NDArray[np.bool_]:
        """Pixels of the crop of each cell whose middle lies inside of another, ``[B, S, S]``.

        Args:
            cells: Rows of the cells, ``[B]``.
            windows: x and y of the crops' first corner and their side, in µm, ``[B, 3]``.
            size_px: Side of the crops in pixels, :math:`S`.
        """
        tree, rows, reach = self._tree
        middle = windows[:, :2] + windows[:, 2:] / 2
        found = tree.query_ball_point(middle, windows[:, 2] / 2 + reach, p=np.inf)
        others = [rows[near] for near in found]
        others = [near[near != cell] for near, cell in zip(others, cells, strict=True)]
        ptr = np.concatenate([[0], np.cumsum([len(near) for near in others])]).astype(np.int64)
        flat = np.concatenate([*others, np.empty(0, np.int64)]).astype(np.int64)
        return _filled(self.corners, self.ptr, flat, ptr, windows, size_px)

    @cached_property
    def _tree(self) -> tuple[cKDTree, NDArray[np.int64], float]:
        """Tree of the middles of all boxes, the rows of its points, half of the longest side."""
        rows = np.flatnonzero(self.known)
        boxes = self.boxes[rows]
        longest = float((boxes[:, 2:] - boxes[:, :2]).max(initial=0))
        return cKDTree((boxes[:, :2] + boxes[:, 2:]) / 2), rows, longest / 2


@njit(cache=True, nogil=True)
def _filled(
    corners: np.ndarray,
    ptr: np.ndarray,
    cells: np.ndarray,
    of_crop: np.ndarray,
    windows: np.ndarray,
    size: int,
) -> np.ndarray:
    """Pixels of each crop that lie in any of its polygons, by crossings of each row of middles.

    Args:
        corners: Of all polygons, ``[V, 2]``.
        ptr: Where the corners of each polygon begin, ``[N + 1]``.
        cells: Polygons of all crops, ``[P]``.
        of_crop: Where the polygons of each crop begin, ``[B + 1]``.
        windows: First corner and side of each crop, ``[B, 3]``.
        size: Pixels of a side.
    """
    out = np.zeros((len(windows), size, size), np.bool_)
    for i in range(len(windows)):
        x0, y0, side = windows[i]
        pixel = side / size
        for k in range(of_crop[i], of_crop[i + 1]):
            begin, end = ptr[cells[k]], ptr[cells[k] + 1]
            crossings = np.empty(end - begin)
            for row in range(size):
                y = y0 + (row + 0.5) * pixel
                num = 0
                for a in range(begin, end):
                    b = a + 1 if a + 1 < end else begin
                    ya, yb = corners[a, 1], corners[b, 1]
                    if (ya <= y) != (yb <= y):
                        xa, xb = corners[a, 0], corners[b, 0]
                        crossings[num] = xa + (y - ya) / (yb - ya) * (xb - xa)
                        num += 1
                ordered = np.sort(crossings[:num])
                for j in range(0, num - 1, 2):
                    first = int(np.ceil((ordered[j] - x0) / pixel - 0.5))
                    last = int(np.ceil((ordered[j + 1] - x0) / pixel - 0.5))
                    for column in range(max(first, 0), min(last, size)):
                        out[i, row, column] = True
    return out
