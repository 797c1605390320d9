"""Columns that are coordinates, by their names: an axis each, maybe a unit, x beside y."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

UNITS = {
    "px": ("px", "pxl", "pixel", "pixels", "fullres"),
    "um": ("um", "µm", "μm", "micron", "microns", "micrometer", "micrometers", "micrometre",
           "micrometres"),
    "mm": ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    "nm": ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
    "cm": ("cm", "centimeter", "centimeters", "centimetre", "centimetres"),
}  # fmt: skip
"""Unit → the words for it in names of columns and in ``uns``."""

_AXES = (
    {"x", "col", "column", "xcoord", "xcoords", "xcoordinate", "xpos", "xloc", "xcentroid"},
    {"y", "row", "ycoord", "ycoords", "ycoordinate", "ypos", "yloc", "ycentroid"},
)
_WHOLE = {"imagecol": 0, "imagerow": 1, "centroid-1": 0, "centroid-0": 1}  # rows are y
_TOKEN = re.compile(r"[A-Z]+(?![a-zµμ])|[A-Z]?[a-zµμ]+|\d+")
_OF_MAKERS = (("x_centroid", "y_centroid"), ("center_x", "center_y"))
"""Of Xenium and MERSCOPE, µm by their manuals; ``X_centroid`` of MCMICRO is pixels."""
_NO_PLACE = {"array", "umap", "tsne", "pca", "min", "max", "velocity"}


class AxisPair(NamedTuple):
    """Two columns of a table that hold x and y by their names.

    Attributes:
        x: Name of the column of x.
        y: Name of the column of y.
        unit: Key of :data:`UNITS` that both names wear, if any.
        rest: The other words of their names.
    """

    x: str
    y: str
    unit: str | None
    rest: tuple[str, ...]

    def __str__(self) -> str:
        return f"obs[{self.x!r}] and obs[{self.y!r}]"

    @property
    def is_um_by_maker(self) -> bool:
        """True for names of µm by vendors that name no unit: ``x_centroid``, ``center_x``."""
        return (self.x, self.y) in _OF_MAKERS

    def values(self, table: pd.DataFrame) -> NDArray[np.float64]:
        """The coordinates, ``[N, 2]``."""
        return table[[self.x, self.y]].to_numpy(np.float64, na_value=np.nan)


def tokens(name: str) -> list[str]:
    """Words of a name, small: ``CenterX_global_px`` has center, x, global and px."""
    return [t.lower() for t in _TOKEN.findall(name)]


def axis_pairs(names: Iterable[object]) -> list[AxisPair]:
    """Columns that are coordinates by their names, x beside y, in order of the table.

    Examples:
        >>> axis_pairs(["area", "Centroid X µm", "Centroid Y µm"])[0].unit
        'um'
    """
    found: dict[tuple[tuple[str, ...], str | None], dict[int, str]] = {}
    for name in map(str, names):
        words = tokens(name)
        unit = next((u for u, known in UNITS.items() if set(words) & set(known)), None)
        axis = axis_of(name)
        if name in ("imagecol", "imagerow"):
            unit, words = "px", ["image"]
        if axis is None or _NO_PLACE & set(words):
            continue
        rest = tuple(t for t in words if t not in _AXES[0] | _AXES[1] and t not in "01")
        found.setdefault((rest, unit), {}).setdefault(axis, name)
    return [
        AxisPair(xy[0], xy[1], unit, rest) for (rest, unit), xy in found.items() if len(xy) == 2
    ]


def axis_of(name: str) -> int | None:
    """0 for a column of x and 1 for one of y, by its name."""
    if name in _WHOLE:
        return _WHOLE[name]
    words = set(tokens(name))
    axes = [axis for axis, known in enumerate(_AXES) if words & known]
    return axes[0] if len(axes) == 1 else None


def x_before_y(columns: Sequence[object]) -> list[int]:
    """Order that puts x before y where both of two names say which they are; else as they are.

    Examples:
        >>> x_before_y(["pxl_row_in_fullres", "pxl_col_in_fullres"])
        [1, 0]
    """
    axes = [axis_of(str(name)) for name in columns]
    return [1, 0] if axes == [1, 0] else list(range(len(columns)))


def same_places(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Check that two tables of coordinates, ``[N, 2]``, agree to what a file rounds off."""
    extent = max(float(np.ptp(b, axis=0).max()), 1e-12) if len(b) else 1.0
    return bool(np.allclose(a, b, rtol=1e-6, atol=1e-5 * extent))
