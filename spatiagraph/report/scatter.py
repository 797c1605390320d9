"""A map of the cells to move about in: what lies under the pointer, coloured by what one chooses.

Drawn by Bokeh on a canvas. The drop-down is plain HTML with twenty lines of JavaScript in place of
a Bokeh widget: those need ``eval``, which the page forbids, and a third more code in every page.
"""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from bokeh.embed import json_item
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    DataRange1d,
    HoverTool,
    LinearColorMapper,
    PanTool,
    ResetTool,
    WheelZoomTool,
)
from bokeh.models.annotations import ScaleBar
from bokeh.models.annotations.dimensional import Metric
from bokeh.plotting import figure
from bokeh.resources import Resources
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image

from spatiagraph.data.slide import Slide
from spatiagraph.plot.colors import MISSING, category_colors, is_categorical
from spatiagraph.plot.maps import cell_spacing
from spatiagraph.report.page import as_text
from spatiagraph.report.style import CONTROLS

MAX_CELLS = 20_000
"""Cells a laptop still draws without a stutter while the map is dragged."""
_HEIGHT = 620  # pixels
_MAX_COLUMNS = 12
_MAX_CATEGORIES = 40


@dataclass(frozen=True)
class Scatter:
    """A map for :meth:`Report.add_scatter`.

    Attributes:
        item: The drawing, as Bokeh embeds it.
        legends: Column → its legend as HTML; the first one is shown first.
        num_cells: Cells of the slide.
        rows: Cells that are drawn, ``[N']``.
        with_image: Whether the image of the slide lies beneath.
    """

    item: dict[str, Any]
    legends: dict[str, str]
    num_cells: int
    rows: NDArray[np.int64]
    with_image: bool


def cell_scatter(
    slide: Slide,
    columns: Mapping[str, pd.Series],
    *,
    palettes: Mapping[str, Mapping[object, str]] | None = None,
    max_cells: int = MAX_CELLS,
    max_px: int = 1200,
    seed: int = 0,
) -> Scatter:
    """A map of the cells with a drop-down for the colour.

    Args:
        slide: The slide; its image lies beneath.
        columns: Name → value of each cell ``[N]``: what there is to choose from, and what hovering
            over a cell tells of it.
        palettes: Name → colours of some or all of its categories.
        max_cells: Of a larger slide, this many random cells are drawn.
        max_px: Longest side of the image in pixels.
        seed: Seed of the draw.

    Raises:
        ValueError: If there is nothing to choose from, or a column has not one value per cell.
    """
    if not columns or max_cells < 1:
        raise ValueError(
            f"Expected columns to colour by and room for a cell, got {list(columns)} and "
            f"max_cells={max_cells}"
        )
    for name, values in columns.items():
        if len(values) != slide.num_cells:
            raise ValueError(
                f"Expected a value per cell in {name!r}, got {len(values)} for "
                f"{slide.num_cells} cells"
            )
    rows = np.arange(slide.num_cells)
    if slide.num_cells > max_cells:
        chosen = np.random.default_rng(seed).choice(slide.num_cells, max_cells, replace=False)
        rows = np.sort(chosen)
    pos = slide.pos[rows]
    source: dict[str, Any] = {
        "x": pos[:, 0].astype(np.float32),
        "y": pos[:, 1].astype(np.float32),
        "id": slide.adata.obs_names[rows].astype(str).tolist(),
    }
    tooltips, legends, mappers = [("cell", "@id")], {}, []
    for number, (name, values) in enumerate(columns.items()):
        palette = (palettes or {}).get(name)
        encoded, mapper, legend, hover = _encode(values, rows, palette, f"c{number}")
        source |= encoded
        mapper.name = f"mapper {number}"
        mappers.append(mapper)
        legends[name] = legend
        tooltips.append((name, hover))
    plot = _empty_plot()
    if slide.image is not None:
        _lay_image(plot, slide, max_px)
    cells = plot.circle(
        "x",
        "y",
        source=ColumnDataSource(source),
        radius=_radius_um(pos, thinned=len(rows) < slide.num_cells),
        hit_dilation=1.5,
        line_color=None,
        fill_alpha=1.0 if slide.image is None else 0.85,
        fill_color={"field": "c0", "transform": mappers[0]},
        name="cells",
        tags=mappers,  # the page looks them up by name
    )
    plot.add_tools(HoverTool(renderers=[cells], tooltips=tooltips, limit=1))
    for side in (plot.x_range, plot.y_range):
        side.renderers = [cells]  # not what the image covers beside the cells
    item: dict[str, Any] = json_item(plot)  # type: ignore[assignment]
    return Scatter(item, legends, slide.num_cells, rows, slide.image is not None)


def scatter_columns(slide: Slide, first: Mapping[str, pd.Series]) -> dict[str, pd.Series]:
    """What to offer as colour: the given columns, the depth, then columns of ``obs`` that tell.

    Left out are columns with one value only, names with more than 40 different ones, and what
    exceeds twelve in all.

    Args:
        slide: The slide.
        first: Name → value of each cell, ``[N]``.
    """
    columns = dict(first)
    own = {str(name): values.reset_index(drop=True) for name, values in slide.adata.obs.items()}
    names = {name: values for name, values in own.items() if is_categorical(values)}
    depth = "molecules" if slide.expression == "counts" else "sum of values"
    amounts = {depth: pd.Series(slide.depth)} | {k: v for k, v in own.items() if k not in names}
    for name, values in {**names, **amounts}.items():
        tells = 1 < values.nunique() <= (_MAX_CATEGORIES if name in names else np.inf)
        again = any(values.equals(shown) for shown in columns.values())
        if tells and not again and name not in columns and len(columns) < _MAX_COLUMNS:
            columns[name] = values
    return columns


def scatter_html(scatter: Scatter, name: str) -> str:
    """The map with its controls and legends.

    Args:
        scatter: The map.
        name: An id that nothing else on the page has.
    """
    options = "".join(
        f'<option value="{number}">{escape(column)}</option>'
        for number, column in enumerate(scatter.legends)
    )
    legends = "".join(
        f'<div class="legend" data-column="{number}"{" hidden" if number else ""}>{legend}</div>'
        for number, legend in enumerate(scatter.legends.values())
    )
    opacity = (
        '<label>Cells over the image <input type="range" min="0" max="1" step="0.05" value="0.85">'
        "</label>"
        if scatter.with_image
        else ""
    )
    shown = len(scatter.rows)
    thinned = (
        f'<p class="thinned"><strong>Thinned:</strong> {as_text(shown)} of '
        f"{as_text(scatter.num_cells)} cells, drawn at random, so that the map stays quick. "
        "The other pictures show all of them.</p>"
        if shown < scatter.num_cells
        else ""
    )
    # JSON in HTML: no "<" can end the block
    item = json.dumps(scatter.item | {"target_id": f"{name}-plot"}, separators=(",", ":"))
    item = item.replace("<", "\\u003c")
    return (
        f'<div class="scatter" id="{name}"><p class="controls"><label>Colour by '
        f"<select>{options}</select></label>{opacity}</p>{thinned}"
        f'<div class="canvas" id="{name}-plot"></div>{legends}'
        "<noscript>The map needs JavaScript, which comes with this page.</noscript>"
        f'<script type="application/json">{item}</script></div>'
    )


def scatter_scripts() -> list[str]:
    """What a page with maps runs: Bokeh itself, and what joins the controls to the maps."""
    return [*Resources(mode="inline", components=["bokeh"], log_level="warn").js_raw, CONTROLS]


def _radius_um(pos: NDArray[np.floating], *, thinned: bool) -> float:
    """Nearly half the distance of neighbours; what is left of a thinned slide fills its area."""
    alone = 0.45 * cell_spacing(pos)
    if thinned:
        return max(alone, 0.5 * float(np.sqrt(np.prod(np.ptp(pos, axis=0)) / len(pos))))
    return alone


def _empty_plot() -> Any:
    """Axes in µm with y downwards, one µm as long in x as in y."""
    options: dict[str, Any] = {  # Bokeh's annotations know only a part of them
        "height": _HEIGHT,
        "sizing_mode": "stretch_width",
        "x_range": DataRange1d(range_padding=0.02),
        "y_range": DataRange1d(range_padding=0.02, flipped=True),
        "match_aspect": True,
        "x_axis_label": "x (µm)",
        "y_axis_label": "y (µm)",
        "tools": [PanTool(), BoxZoomTool(match_aspect=True), ResetTool()],
        "toolbar_location": "above",
    }
    plot: Any = figure(**options)
    wheel = WheelZoomTool()
    plot.add_tools(wheel)
    plot.toolbar.active_scroll = wheel
    plot.toolbar.logo = None
    plot.grid.visible = False
    plot.outline_line_color = None
    bar = ScaleBar(
        range=plot.x_range,
        unit="µm",
        dimensional=Metric(base_unit="m"),
        orientation="horizontal",
        location="bottom_left",
        background_fill_alpha=0.85,
        border_line_color=None,
    )
    plot.add_layout(bar)
    return plot


def _lay_image(plot: Any, slide: Slide, max_px: int) -> None:
    assert slide.image is not None
    pixels, (x0, y0, x1, y1) = slide.image.thumbnail(max_px)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    plot.image_url(
        url=[f"data:image/jpeg;base64,{data}"], x=x0, y=y0, w=x1 - x0, h=y1 - y0, anchor="top_left"
    )


def _encode(
    values: pd.Series,
    rows: NDArray[np.int64],
    palette: Mapping[object, str] | None,
    field: str,
) -> tuple[dict[str, Any], LinearColorMapper, str, str]:
    """Data of a column, its colours, its legend, and what hovering shows."""
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
