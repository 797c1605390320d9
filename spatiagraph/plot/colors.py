"""Colour palettes for any colour vision."""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd

PALETTE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#F0E442",
    "#0000FF",
    "#692D0F",
    "#2D1EA5",
    "#69005A",
    "#00F087",
    "#0F78FF",
    "#E1004B",
    "#87003C",
    "#FF965A",
    "#3C2D87",
    "#8796FF",
    "#004BF0",
    "#FF96A5",
)
"""Okabe and Ito's seven hues, then colours as far as possible from all before them in CIELAB, as
seen with normal vision, protanopia and deuteranopia. White, black and light grey are left free."""
MISSING = "#D9D9D9"
"""Colour of cells without a value."""
_MAX_INTEGER_CATEGORIES = 32
_SHADES = (None, 0x20, 0xF0)
"""Value that half of each part of a colour comes from, in each round of the palette."""


def is_categorical(values: pd.Series) -> bool:
    """Check that values are names or groups, not amounts; up to 32 integers are groups."""
    if isinstance(values.dtype, pd.CategoricalDtype) or pd.api.types.is_bool_dtype(values.dtype):
        return True
    if pd.api.types.is_integer_dtype(values.dtype):
        return values.nunique() <= _MAX_INTEGER_CATEGORIES
    return not pd.api.types.is_numeric_dtype(values.dtype)


def categories(values: pd.Series) -> list[object]:
    """Categories that occur, in their own order if they have one and sorted otherwise.

    Numbers in names are sorted as numbers, also where pandas sorted them as text.

    Examples:
        >>> categories(pd.Series(["10", "2", "1"], dtype="category"))
        ['1', '2', '10']
    """
    if isinstance(values.dtype, pd.CategoricalDtype):
        present = set(values.dropna().unique())
        found = [c for c in values.cat.categories if c in present]
        if values.dtype.ordered or found != sorted(found, key=str):
            return found
    else:
        found = values.dropna().unique().tolist()
        found = sorted(found) if len({type(v) for v in found}) == 1 else sorted(found, key=str)
    return sorted(found, key=_natural) if all(isinstance(v, str) for v in found) else found


def _natural(name: object) -> list[tuple[int, str]]:
    """Key that sorts digits as the number they are."""
    parts = re.split(r"([0-9]+)", str(name))
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(parts)]


def category_colors(
    values: pd.Series, palette: Mapping[object, str] | None = None
) -> dict[object, str]:
    """A colour for each category; after 20 of them come darker shades, lighter ones after 40.

    With more than 60 categories colours repeat.

    Args:
        values: Categories of the cells.
        palette: Colours to use for some or all categories.

    Examples:
        >>> category_colors(pd.Series(["b", "a", None]))
        {'a': '#0072B2', 'b': '#E69F00'}
    """
    names = categories(values)
    colors = {name: _color(i) for i, name in enumerate(names)}
    return colors | {k: v for k, v in (palette or {}).items() if k in colors}


def _color(number: int) -> str:
    """Colour of a category by its number: of the palette, then its shades."""
    toward = _SHADES[number // len(PALETTE) % len(_SHADES)]
    hue = PALETTE[number % len(PALETTE)]
    parts = [int(hue[i : i + 2], 16) for i in (1, 3, 5)]
    return hue if toward is None else "#" + "".join(f"{(v + toward) // 2:02X}" for v in parts)


def legend_text(name: object) -> str:
    """Name for a legend, where matplotlib would leave out one that begins with an underscore."""
    text = str(name)
    return f" {text}" if text.startswith("_") else text


def match_categories(found: pd.Series, reference: pd.Series) -> dict[object, object]:
    """The reference category that each found one overlaps most, each used once.

    Lets found domains wear the colours of the expert's, so that two maps can be compared by eye.
    Found categories that share no cell with what is left of the reference are not in the result.
    """
    from scipy.optimize import linear_sum_assignment

    table = pd.crosstab(np.asarray(found), np.asarray(reference))
    shared = table.to_numpy()
    pairs = zip(*linear_sum_assignment(-shared), strict=True)
    return {table.index[r]: table.columns[c] for r, c in pairs if shared[r, c]}
