"""Interactive map of the cells: pan, zoom, hover, and colour by a column.

Drawn by Bokeh on a canvas. The drop-down is plain HTML with some lines of JavaScript in place of a
Bokeh widget: those need ``eval``, which the page forbids, and a third more code in every page.
Cells that have outlines are drawn by them where the part in view holds few enough.
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
    LassoSelectTool,
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
from spatiagraph.plot.maps import cell_spacing
from spatiagraph.report.coloring import encode
from spatiagraph.report.gene_values import GeneValues, gene_values
from spatiagraph.report.packed_outlines import pack_outlines
from spatiagraph.report.style import CONTROLS
from spatiagraph.report.text import as_text, unit_of

MAX_CELLS = 20_000
"""Cells that a laptop still draws without a stutter while the map is dragged."""
_HEIGHT = 620  # pixels


@dataclass(frozen=True)
class Scatter:
    """A map for :meth:`Report.add_scatter`.

    Attributes:
        item: The drawing, as Bokeh embeds it.
        legends: Column → its legend as HTML; the first one is shown first.
        genes: Gene → its values at the cells that are drawn.
        outlines: Outlines of the cells that are drawn, packed; ``None`` where there are none.
        amount: What the values of genes are.
        num_cells: Cells of the slide.
        unit: What they are: cells, spots or bins.
        rows: Cells that are drawn, ``[N']``.
        with_image: Whether the image of the slide lies beneath.
    """

    item: dict[str, Any]
    legends: dict[str, str]
    genes: dict[str, GeneValues]
    outlines: dict[str, Any] | None
    amount: str
    num_cells: int
    unit: str
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
    unit = unit_of(slide)
    tooltips, legends, mappers = [(unit, "@id")], {}, []
    for number, (name, values) in enumerate(columns.items()):
        palette = (palettes or {}).get(name)
        encoded, mapper, legend, hover = encode(values, rows, palette, f"c{number}")
        source |= encoded
        mapper.name = f"mapper {number}"
        mappers.append(mapper)
        legends[name] = legend
        tooltips.append((name, hover))
    hues = [to_hex(hue) for hue in colormaps["viridis"](np.linspace(0, 1, 256))]
    mappers.append(LinearColorMapper(palette=hues, low=0, high=255, name="mapper gene"))
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
    plot.patches(  # filled by the page with the cells in view, where these are few
        "xs",
        "ys",
        source=ColumnDataSource({"xs": [], "ys": [], "value": []}),
        fill_color={"field": "value", "transform": mappers[0]},
        line_color="white",
        line_width=0.6,
        name="outlines",
    )
    cells.selection_glyph = cells.nonselection_glyph = None  # the outline says what is selected
    plot.add_tools(
        HoverTool(renderers=[cells], tooltips=tooltips, limit=1),
        LassoSelectTool(renderers=[cells], continuous=False, persistent=True),
    )
    plot.subscribed_events = {"selectiongeometry"}  # the page hears of an outline
    for side in (plot.x_range, plot.y_range):
        side.renderers = [cells]  # not what the image covers beside the cells
    item: dict[str, Any] = json_item(plot)  # type: ignore[assignment]
    amount = "log(1 + count)" if slide.expression == "counts" else "value"
    return Scatter(
        item=item,
        legends=legends,
        genes=gene_values(slide, rows),
        outlines=pack_outlines(slide.outlines, rows),
        amount=amount,
        num_cells=slide.num_cells,
        unit=unit,
        rows=rows,
        with_image=slide.image is not None,
    )


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
        f"<label>{scatter.unit.capitalize()}s over the image "
        '<input type="range" min="0" max="1" step="0.05" value="0.85"></label>'
        if scatter.with_image
        else ""
    )
    stops = ", ".join(to_hex(hue) for hue in colormaps["viridis"](np.linspace(0, 1, 18)))
    legends += (
        '<div class="legend" data-column="gene" hidden><span class="low"></span>'
        f'<span class="ramp" style="background:linear-gradient(to right, {stops})"></span>'
        f'<span class="high"></span><span>{escape(scatter.amount)}</span></div>'
    )
    names = "".join(f'<option value="{escape(gene)}">' for gene in scatter.genes)
    chooser = (
        f'<label>or by gene <input type="search" class="gene" list="{name}-genes" '
        f'placeholder="one of {as_text(len(scatter.genes))}" autocomplete="off"></label>'
        f'<datalist id="{name}-genes">{names}</datalist>'
    )
    shown = len(scatter.rows)
    thinned = (
        f'<p class="thinned"><strong>Thinned:</strong> {as_text(shown)} of '
        f"{as_text(scatter.num_cells)} {scatter.unit}s, drawn at random, so that the map stays "
        "quick. The other pictures show all of them.</p>"
        if shown < scatter.num_cells
        else ""
    )
    # JSON in HTML: no "<" can end the block
    item = json.dumps(scatter.item | {"target_id": f"{name}-plot"}, separators=(",", ":"))
    item = item.replace("<", "\\u003c")
    values = json.dumps(scatter.genes, separators=(",", ":")).replace("<", "\\u003c")
    outlines = (
        ""
        if scatter.outlines is None
        else f'<script type="application/json" class="outlines">{json.dumps(scatter.outlines)}'
        "</script>"
    )
    return (
        f'<div class="scatter" id="{name}"><p class="controls"><label>Colour by '
        f"<select>{options}</select></label>{chooser}{opacity}</p>{thinned}"
        f'<div class="canvas" id="{name}-plot"></div>{legends}'
        f'<p class="drawn">Draw around {scatter.unit}s with the lasso to search for what is like '
        "them.</p>"
        "<noscript>The map needs JavaScript, which comes with this page.</noscript>"
        f'<script type="application/json">{item}</script>'
        f'<script type="application/json" class="genes">{values}</script>{outlines}</div>'
    )


def scatter_scripts() -> list[str]:
    """Scripts of a page with maps: Bokeh, and the link from controls to maps."""
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
        "name": "plot",
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
        bar_length=0.1,
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
