"""Outlines of cells as a filter of molecules: inside, and not too near the edge."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numba import njit
from numpy.typing import NDArray

from spatiagraph.data.outlines import Outlines
from spatiagraph.data.read.corners import OutlinesFile
from spatiagraph.data.read.molecules import as_text

_CORNERS = (("vertex_x", "vertex_y"), ("x_um", "y_um"), ("x", "y"))


@dataclass(frozen=True)
class CellOutlines:
    """Outlines of cells, and how near to them a molecule is doubtful.

    Molecules spill over: those near the edge of a cell may be of its neighbour, and neighbours then
    look alike for no reason of theirs. What is kept lies inside the outline of its own cell and at
    least ``margin_um`` from it. Cells without an outline lose all molecules.

    Attributes:
        cell_ids: Name of each cell, ``[N]``.
        outlines: Their outlines in µm.
        margin_um: Least distance to the outline.

    Raises:
        ValueError: ``margin_um`` is negative or not finite.

    Examples:
        >>> square = pd.DataFrame({"cell_id": "c", "x": [0, 9, 9, 0], "y": [0, 0, 9, 9]})
        >>> outlines = CellOutlines.from_table(square, margin_um=2.0)
        >>> cell, x = np.zeros(3, int), np.array([1.0, 2.0, 10.0])
        >>> outlines.keep(["c"], cell, x, np.full(3, 4.5)).tolist()
        [False, True, False]
    """

    cell_ids: np.ndarray
    outlines: Outlines
    margin_um: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.margin_um < np.inf:
            raise ValueError(f"Expected 'margin_um' of 0 or more, got {self.margin_um}")

    @classmethod
    def from_table(cls, table: pd.DataFrame, margin_um: float = 0.0) -> "CellOutlines":
        """Outlines of a table with one row per corner.

        Args:
            table: ``cell_id`` with ``vertex_x`` and ``vertex_y`` (Xenium), ``x_um`` and ``y_um``,
                or ``x`` and ``y``, in µm, the corners of a cell in order.
            margin_um: Least distance to the outline.

        Raises:
            ValueError: A column is missing, a corner is no place, or a cell has fewer than three.
        """
        pair = next((p for p in _CORNERS if {*p, "cell_id"} <= set(table)), None)
        if pair is None:
            raise ValueError(
                "Expected columns cell_id, vertex_x and vertex_y of the outlines, got "
                f"{', '.join(map(str, table))}"
            )
        corners = table[["cell_id", *pair]].set_axis(["cell_id", "x_um", "y_um"], axis=1)
        corners["cell_id"] = as_text(corners["cell_id"], " of the outlines")
        cell_ids = np.asarray(corners["cell_id"].unique(), dtype=object)
        return cls(cell_ids, Outlines.from_table(corners, pd.Index(cell_ids)), margin_um)

    @classmethod
    def read(cls, path: Path, margin_um: float = 0.0, *, mpp: float = 1.0) -> "CellOutlines":
        """Outlines of a file, such as ``cell_boundaries.parquet`` of Xenium.

        Args:
            path: Any file of outlines that :func:`spatiagraph.read` takes.
            margin_um: Least distance to the outline.
            mpp: µm per unit of its coordinates.

        Raises:
            FileNotFoundError: There is no such file.
            ImportError: Outlines of MERSCOPE need the extra ``[io]``.
            ValueError: It is damaged, or as :meth:`from_table`.
        """
        return cls.from_table(OutlinesFile(path, mpp).read(), margin_um)

    def keep(
        self,
        names: Sequence[str],
        cell: NDArray[np.integer],
        x_um: NDArray[np.floating],
        y_um: NDArray[np.floating],
    ) -> NDArray[np.bool_]:
        """Molecules inside of their cell and far enough from its outline.

        Args:
            names: Names of cells.
            cell: Number of each molecule's cell among ``names``, ``[M]``; -1 for none.
            x_um: Positions, ``[M]``.
            y_um: Positions, ``[M]``.

        Returns:
            ``[M]``; false for molecules in no cell.
        """
        place = pd.Index(self.cell_ids).get_indexer(pd.Index(np.asarray(names, dtype=object)))
        outline = np.append(place, -1)[cell]
        kept: NDArray[np.bool_] = _inside(
            outline, x_um.astype(np.float64), y_um.astype(np.float64), self.outlines.ptr,
            self.outlines.corners, float(self.margin_um),
        )  # fmt: skip
        return kept

    def check_any(self, names: Sequence[str]) -> None:
        """Refuse outlines of other cells.

        Args:
            names: Names of the cells that have molecules.

        Raises:
            ValueError: No cell has an outline.
        """
        if len(names) and not np.isin(np.asarray(names, dtype=object), self.cell_ids).any():
            raise ValueError(
                f"Expected outlines of the cells of the molecules, got none: outlines are of cells "
                f"such as {self.cell_ids[0]!r}, molecules of such as {names[0]!r}"
            )


@njit(cache=True, nogil=True)
def _inside(
    outline: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    ptr: np.ndarray,
    corners: np.ndarray,
    margin: float,
) -> np.ndarray:
    """Whether each point is in its polygon (even-odd rule) and ``margin`` from all its sides."""
    kept = np.zeros(len(outline), np.bool_)
    for i in range(len(outline)):
        if outline[i] < 0:
            continue
        first, last = ptr[outline[i]], ptr[outline[i] + 1]
        inside = False
        far = True
        for j in range(first, last):
            k = j - 1 if j > first else last - 1
            ax, ay = corners[k, 0] - x[i], corners[k, 1] - y[i]
            bx, by = corners[j, 0] - x[i], corners[j, 1] - y[i]
            if (ay > 0) != (by > 0) and ax - ay * (bx - ax) / (by - ay) > 0:
                inside = not inside
            dx, dy = bx - ax, by - ay
            length = dx * dx + dy * dy
            t = 0.0 if length == 0 else min(1.0, max(0.0, -(ax * dx + ay * dy) / length))
            if (ax + t * dx) ** 2 + (ay + t * dy) ** 2 < margin * margin:
                far = False
                break
        kept[i] = inside and far
    return kept
