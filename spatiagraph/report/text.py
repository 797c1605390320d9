"""Values as text."""

from typing import Any

import numpy as np
import pandas as pd

from spatiagraph.data.slide import Slide
from spatiagraph.data.units import lattice

_BIN_UM = 20.0  # sites of a lattice that lie closer are bins of one array, no spots


def unit_of(slide: Slide) -> str:
    """Name what a row of a slide is: ``"cell"``, or ``"spot"`` or ``"bin"`` of a capture array."""
    found = lattice(slide.pos)
    if found is None:
        return "cell"
    return "spot" if found.pitch > _BIN_UM else "bin"


def as_text(value: Any) -> str:
    """Format a value for people: thousands apart, four digits, yes and no.

    Examples:
        >>> as_text([True, 0.123456, 3])
        'yes, 0.1235, 3'
    """
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace(",", "\u202f") if abs(int(value)) >= 10_000 else str(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:.4g}" if number == 0 or 1e-3 <= abs(number) < 1e5 else f"{number:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(as_text(v) for v in value)
    return str(value)
