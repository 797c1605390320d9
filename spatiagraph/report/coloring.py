"""Colourings of the cells of a map: data, colours, legends."""

from collections.abc import Collection, Mapping
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from bokeh.models import LinearColorMapper
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from spatiagraph.data.slide import Slide
from spatiagraph.plot.colors import MISSING, category_colors, is_categorical

_MAX_COLUMNS = 12
_MAX_CATEGORIES = 40


def scatter_columns(
    slide: Slide, first: Mapping[str, pd.Series], *, hidden: Collection[str] = ()
) -> dict[str, pd.Series]:
    """Columns to colour by: the given ones, the depth, then informative columns of ``obs``.

    Left out are columns with one value only, names with more than 40 different ones, and what
    exceeds twelve in all.

    Args:
        slide: The slide.
        first: Name → value of each cell, ``[N]``.
        hidden: Columns of ``obs`` to leave out.
    """
    columns = dict(first)
    own = {str(name): values.reset_index(drop=True) for name, values in slide.adata.obs.items()}
    own = {name: values for name, values in own.items() if name not in hidden}
    names = {name: values for name, values in own.items() if is_categorical(values)}
    depth = "molecules" if slide.expression == "counts" else "sum of values"
    amounts = {depth: pd.Series(slide.depth)} | {k: v for k, v in own.items() if k not in names}
    for name, values in {**names, **amounts}.items():
        tells = 1 < values.nunique() <= (_MAX_CATEGORIES if name in names else np.inf)
        again = any(values.equals(shown) for shown in columns.values())
        if tells and not again and name not in columns and len(columns) < _MAX_COLUMNS:
            columns[name] = values
    return columns


def encode(
    values: pd.Series,
    rows: NDArray[np.int64],
    palette: Mapping[object, str] | None,
    field: str,
) -> tuple[dict[str, Any], LinearColorMapper, str, str]:
    """Data of a column, its colours, its legend, and what hovering shows.

    Args:
        values: Value of each cell, ``[N]``.
        rows: Cells that are drawn, ``[N']``.
        palette: Colours of some or all categories.
        field: Name of the data.
    """
    if not is_categorical(values):
        amounts = values.to_numpy(dtype=np.float64)
        known = amounts[np.isfinite(amounts)]
        low, high = np.percentile(known, (1, 99)) if len(known) else (0.0, 1.0)
        high = high if high > low else low + 1
        hues = [to_hex(hue) for hue in colormaps["viridis"](np.linspace(0, 1, 256))]
        mapper = LinearColorMapper(palette=hues, low=low, high=high, nan_color=MISSING)
        stops = ", ".join(hues[::15])
        legend = (
            f'<span>{low:.4g}</span><span class="ramp" style="background:linear-gradient(to right, '
            f'{stops})"></span><span>{high:.4g}</span>'
        )
        if len(known) < len(amounts):
            legend += _entry(MISSING, "none")
        return {field: amounts[rows].astype(np.float32)}, mapper, legend, f"@{field}{{0.[000]}}"
    colors = category_colors(values, palette)
    code_of = {name: code for code, name in enumerate(colors)}
    codes = np.array([code_of.get(v, -1) for v in values.iloc[rows]], dtype=np.int16)
    mapper = LinearColorMapper(
        palette=list(colors.values()) or [MISSING],
        low=-0.5,
        high=max(len(colors), 1) - 0.5,
        low_color=MISSING,
    )
    named = [str(name) for name in colors]
    number = values.value_counts().to_dict()
    legend = "".join(_entry(hue, f"{name} ({number[name]})") for name, hue in colors.items())
    if values.isna().any():
        legend += _entry(MISSING, f"none ({int(values.isna().sum())})")
    texts = [named[code] if code >= 0 else "–" for code in codes]
    return {field: codes, f"{field}_name": texts}, mapper, legend, f"@{field}_name"


def _entry(color: str, text: str) -> str:
    return f'<span class="entry"><i style="background:{color}"></i>{escape(text)}</span>'
