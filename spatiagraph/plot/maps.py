"""Cells where they lie, coloured by what is known of them."""

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import EllipseCollection, PolyCollection
from matplotlib.colors import Normalize, to_rgba_array
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy
from numpy.typing import NDArray
from scipy.sparse import issparse
from scipy.spatial import cKDTree

from spatiagraph import keys
from spatiagraph.data.image import SlideImage
from spatiagraph.data.outlines import Outlines
from spatiagraph.data.slide import Slide
from spatiagraph.plot.canvas import add_scale_bar, clear_frame, new_axes, save_figure
from spatiagraph.plot.colors import MISSING, category_colors, is_categorical, legend_text

_ROWS = 22  # legend entries per column
_LINE = 56  # letters of a legend line below
_BAR = 22  # points the scale bar and its label take
_SIDE = 5.0  # inches
_EDGED = 3000  # cells of a map that are parted by lines


def spatial(
    cells: Slide | AnnData | NDArray,
    color: str | pd.Series | NDArray | Sequence | None = None,
    *,
    image: SlideImage | bool | None = None,
    outlines: Outlines | bool | None = None,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
    title: str | None = None,
    size_um: float | None = None,
    alpha: float | None = None,
    palette: Mapping[object, str] | None = None,
    cmap: str = "viridis",
    legend: bool | Literal["right", "below"] = True,
    scale_bar: bool = True,
    window_um: tuple[float, float, float, float] | None = None,
    max_px: int = 1024,
) -> Axes:
    """Map of the cells of a slide.

    The y axis points downwards as in images, one µm is as long in x as in y, and cells fill their
    outlines or are discs of true size, so maps of one slide lie on top of each other.

    Args:
        cells: A slide, an AnnData with positions in ``obsm["spatial"]``, or positions ``[N, 2]``
            in µm.
        color: Column of ``obs``, name of a gene, or values ``[N]``; names and groups get a
            legend, amounts a colour bar, genes the logarithm of their counts. One grey when not
            given.
        image: Image to lay beneath; by default that of the slide, and none with ``False``.
        outlines: Outlines of the cells; by default those of the slide, and discs with ``False``.
        ax: Axes to draw into; new ones when not given.
        save: File to write, such as ``"map.png"`` or ``"map.pdf"``.
        title: Title; by default the name of the column or gene.
        size_um: Diameter of the discs; by default 0.9 of the median distance to the nearest cell.
        alpha: Opacity; by default 1, and 0.85 over an image.
        palette: Colours of some or all categories.
        cmap: Colour map of amounts.
        legend: Where to draw the legend or colour bar, ``"right"`` or ``"below"``; ``True`` is
            right, ``False`` is none.
        scale_bar: Whether to draw the scale bar below.
        window_um: Part to show, ``(x0, y0, x1, y1)``; all of it by default.
        max_px: Longest side of the image beneath in pixels.

    Returns:
        The axes; the figure is ``ax.figure``.

    Raises:
        ValueError: If there is no such column or gene (suggests the nearest), or not one value
            per cell.
    """
    pos, picture = cell_positions(cells), _image(cells, image)
    beside = 2.0 if legend in (True, "right") and color is not None else 0.0
    ax = new_axes(ax, (_SIDE + beside, _SIDE))
    x0, y0, x1, y1 = _window(pos) if window_um is None else window_um
    if picture is not None:
        pixels, (left, top, right, bottom) = picture.thumbnail(max_px)
        # resampled by matplotlib only where it is drawn smaller than it is
        ax.imshow(pixels, extent=(left, right, bottom, top), interpolation="antialiased", zorder=0)
    inside = (pos >= (x0, y0)).all(1) & (pos <= (x1, y1)).all(1)
    size = cell_spacing(pos) * 0.9 if size_um is None else size_um
    alpha = alpha if alpha is not None else (1.0 if picture is None else 0.85)
    name = color if isinstance(color, str) else getattr(color, "name", None)
    colors, draw_legend = _colors(cells, len(pos), color, palette, cmap)
    shapes = _outlines(cells, outlines) if size_um is None else None
    outlined = np.zeros(len(pos), dtype=bool) if shapes is None else shapes.known
    looks: dict[str, Any] = {"alpha": alpha, "rasterized": True, "zorder": 1}
    as_discs, as_shapes = inside & ~outlined, np.flatnonzero(inside & outlined)
    ax.add_collection(
        EllipseCollection(
            widths=size,
            heights=size,
            angles=0,
            units="xy",
            offsets=pos[as_discs],
            offset_transform=ax.transData,
            facecolors=colors[as_discs],
            linewidths=0,
            **looks,
        )
    )
    if shapes is not None:
        near = shapes.select(as_shapes)
        polygons = np.split(near.corners, near.ptr[1:-1]) if len(near) else []
        # edges in the colour of the ground part cells that touch
        looks |= {"edgecolors": "white", "linewidths": 0.3 if len(near) < _EDGED else 0.0}
        ax.add_collection(PolyCollection(polygons, facecolors=colors[as_shapes], **looks))
    ax.set_xlim(x0, x1)
    ax.set_ylim(y1, y0)
    ax.set_aspect("equal")
    clear_frame(ax)
    if scale_bar:
        add_scale_bar(ax)
    ax.set_title(str(name) if title is None and name is not None else title or "", fontsize=10)
    if legend:
        draw_legend(ax, legend == "below")
    save_figure(ax, save)
    return ax


def cell_positions(cells: Slide | AnnData | NDArray) -> NDArray[np.float64]:
    """Cell centres in µm, ``[N, 2]``."""
    if isinstance(cells, Slide):
        return cells.pos
    if isinstance(cells, AnnData):
        if keys.SPATIAL not in cells.obsm:
            raise ValueError(
                f"Expected positions in obsm[{keys.SPATIAL!r}], found {sorted(cells.obsm)}"
            )
        cells = np.asarray(cells.obsm[keys.SPATIAL])
    pos = np.asarray(cells, dtype=np.float64)
    if pos.ndim != 2 or pos.shape[1] != 2 or not len(pos):
        raise ValueError(f"Expected positions [N, 2] of at least one cell, got {pos.shape}")
    return pos


def _image(cells: Any, image: SlideImage | bool | None) -> SlideImage | None:
    if isinstance(image, SlideImage):
        return image
    return cells.image if image is not False and isinstance(cells, Slide) else None


def _outlines(cells: Any, outlines: Outlines | bool | None) -> Outlines | None:
    if isinstance(outlines, Outlines):
        return outlines
    return cells.outlines if outlines is not False and isinstance(cells, Slide) else None


def _window(pos: NDArray) -> tuple[float, float, float, float]:
    """Extent of the cells with a margin of one cell; the image is cut to it."""
    margin = cell_spacing(pos)
    (x0, y0), (x1, y1) = pos.min(0) - margin, pos.max(0) + margin
    return float(x0), float(y0), float(x1), float(y1)


def cell_spacing(pos: NDArray) -> float:
    """Median distance to the nearest cell in µm; 10 where there is none."""
    if len(pos) < 2:
        return 10.0
    sample = pos[:: max(1, len(pos) // 20_000)]
    near = float(np.median(cKDTree(pos).query(sample, k=2)[0][:, 1]))
    return near if near > 0 else 10.0


def cell_values(cells: Any, color: Any, num: int) -> pd.Series:
    """Values of a column of ``obs``, of a gene (log1p of counts), or those given, ``[N]``."""
    if isinstance(color, str):
        adata = cells.adata if isinstance(cells, Slide) else cells
        if not isinstance(adata, AnnData):
            raise ValueError(f"Expected values [N] with plain positions, got the name {color!r}")
        if color in adata.obs:
            return adata.obs[color].reset_index(drop=True)
        if color in adata.var_names:
            gene = adata[:, color]
            column = gene.layers.get(keys.COUNTS, gene.X)
            dense = (column.toarray() if issparse(column) else np.asarray(column)).ravel()
            logged = keys.COUNTS not in gene.layers and "log1p" in adata.uns  # scanpy's note
            return pd.Series(dense if logged else np.log1p(dense), name=f"{color} (log1p)")
        names = [*map(str, adata.obs.columns), *map(str, adata.var_names)]
        near = difflib.get_close_matches(color, names, n=3) or list(map(str, adata.obs.columns))[:8]
        raise ValueError(
            f"Expected a column of obs or a gene, got {color!r}; nearest: {', '.join(near)}"
        )
    values = color.reset_index(drop=True) if isinstance(color, pd.Series) else pd.Series(color)
    if len(values) != num:
        raise ValueError(f"Expected one value per cell, got {len(values)} for {num} cells")
    return values


def _colors(
    cells: Any, num: int, color: Any, palette: Mapping[object, str] | None, cmap: str
) -> tuple[NDArray, Any]:
    """RGBA of each cell ``[N, 4]``, and what draws the legend."""
    if color is None:
        return to_rgba_array(["#4D4D4D"] * num), lambda ax, below: None
    values = cell_values(cells, color, num)
    if is_categorical(values):
        chosen = category_colors(values, palette)
        hues = [chosen[v] if pd.notna(v) else MISSING for v in values]
        return to_rgba_array(hues), lambda ax, below: _category_legend(ax, values, chosen, below)
    amounts = values.to_numpy(dtype=np.float64)
    known = amounts[np.isfinite(amounts)]
    low, high = np.percentile(known, (1, 99)) if len(known) else (0.0, 1.0)
    scale = ScalarMappable(Normalize(low, high if high > low else low + 1), cmap)
    rgba = np.asarray(scale.to_rgba(np.where(np.isfinite(amounts), amounts, low)))
    rgba[~np.isfinite(amounts)] = to_rgba_array(MISSING)
    return rgba, lambda ax, below: ax.figure.colorbar(
        scale,
        ax=ax,
        shrink=0.6,
        pad=0.12 if below else 0.02,
        location="bottom" if below else "right",
    )


def _category_legend(
    ax: Axes, values: pd.Series, colors: Mapping[object, str], below: bool
) -> None:
    named = {str(name): hue for name, hue in colors.items()}
    if values.isna().any():
        named["none"] = MISSING
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=6, color=hue, label=legend_text(name))
        for name, hue in named.items()
    ]
    place: dict[str, Any] = {
        "loc": "center left",
        "bbox_to_anchor": (1.01, 0.5),
        "ncols": -(-len(handles) // _ROWS),
    }
    if below:  # under the scale bar, as many columns as names of this length leave room for
        whole: Any = ax.figure
        letters = _LINE * ax.get_position().width * whole.get_figwidth() / _SIDE
        place = {
            "loc": "upper left",
            "columnspacing": 1.0,
            "borderaxespad": 0.0,
            "bbox_to_anchor": (0.0, 0.0),
            "bbox_transform": offset_copy(ax.transAxes, whole, y=-_BAR, units="points"),
            "ncols": max(
                1, min(len(handles), int(letters / (5 + max(map(len, named), default=0))))
            ),
        }
    ax.legend(handles=handles, frameon=False, fontsize=9, handletextpad=0.2, **place)
