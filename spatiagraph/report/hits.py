"""``hit_gallery``: the surroundings of a query and of its hits."""

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.data.slide import Slide
from spatiagraph.inference.searching import SlideSearch
from spatiagraph.plot.canvas import DPI, add_scale_bar, save_figure
from spatiagraph.plot.colors import MISSING, category_colors, is_categorical, legend_text
from spatiagraph.plot.galleries import as_rgb, gallery
from spatiagraph.report.niches import draw_surroundings, niche_window_um
from spatiagraph.retrieval.query import Query

_CROP_PX = 128
_COLUMNS = 6
_TILE = 1.6  # inches
_PLAIN: dict[object, str] = {"query": "#D55E00", "hit": "#0072B2", "other": "#D9D9D9"}


def check_color(slides: Sequence[Slide], color: str) -> None:
    """Refuse a column that cannot colour the maps.

    Raises:
        ValueError: If a slide does not have it, or it holds amounts.
    """
    for section in slides:
        obs = section.adata.obs
        if color not in obs or not is_categorical(obs[color]):
            found = "amounts" if color in obs else "no such column"
            raise ValueError(
                f"Expected a column of names or groups in obs of all slides as color=, got "
                f"{color!r}: {found} in {section.slide_id}"
            )


def hit_gallery(
    slides: Sequence[Slide],
    found: SlideSearch,
    *,
    color: str | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Draw the surroundings of the cell in the middle of a query and of the hits.

    Crops of the images if all slides have one and no colour is asked for; maps otherwise.

    Args:
        slides: The slides that were searched.
        found: What :func:`~spatiagraph.inference.search_slides` found.
        color: Column of ``obs`` with names or groups that colours maps; query and hits stand out
            when not given.
        save: File to write.

    Raises:
        ValueError: A slide does not have the column, or it holds amounts.
    """
    if color is not None:
        check_color(slides, color)
    query, hits = found.query, found.hits
    by_id = {s.slide_id: s for s in slides}
    one = query.obs.iloc[query.chosen]
    middle = _middle(one)
    shown = [query.section or by_id[str(one[keys.SLIDE_ID].iloc[middle])]]
    shown += [by_id[str(name)] for name in hits[keys.SLIDE_ID]]
    pos = np.vstack([one[["x_um", "y_um"]].iloc[[middle]], hits[["x_um", "y_um"]]]).astype(float)
    names = [one.index[middle], *hits["id"]]
    titles = [
        "query",
        *(f"{r}: d = {d:.3g}" for r, d in zip(hits["rank"], hits["distance"], strict=True)),
    ]
    titles = [
        f"{title}\n{name}\n{section.slide_id}"
        for title, name, section in zip(titles, names, shown, strict=True)
    ]
    side = max(niche_window_um(section) for section in {id(s): s for s in shown}.values())
    images = [section.image for section in shown if section.image is not None]
    if color is None and len(images) == len(shown):
        crops, covered = zip(
            *(i.crops(p[None], side, _CROP_PX) for i, p in zip(images, pos, strict=True)),
            strict=True,
        )
        rgb = np.stack([np.moveaxis(as_rgb(c[0]), -1, 0) for c in crops])
        frames: list[str | None] = [_PLAIN["query"], *[None] * len(hits)]
        return gallery(
            rgb, titles, mask=np.concatenate(covered), window_um=side, frames=frames, save=save
        )
    figure = _maps(shown, pos, titles, side, query, hits, color)
    if save is not None:
        save_figure(figure, save)
    return figure


def _maps(
    shown: list[Slide],
    pos: NDArray[np.float64],
    titles: list[str],
    side: float,
    query: Query,
    hits: pd.DataFrame,
    color: str | None,
) -> Figure:
    values = [_roles(s, query, hits) if color is None else _names(s, color) for s in shown]
    palette = _PLAIN if color is None else category_colors(pd.concat(values))
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    size = (columns * _TILE + 1.4, rows * (_TILE + 0.5) + 0.3)
    figure = Figure(figsize=size, layout="compressed", dpi=DPI)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    for number, (ax, section, value) in enumerate(zip(axes, shown, values, strict=False)):
        draw_surroundings(ax, section, pos[number], value, palette, side)
        ax.set_title(titles[number], fontsize=7)
    add_scale_bar(axes[len(shown) - 1], gap=0.05, thickness=0.02)  # no title is below the last
    named = palette | ({"none": MISSING} if any(v.isna().any() for v in values) else {})
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=5, color=hue, label=legend_text(name))
        for name, hue in named.items()
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=7)
    return figure


def _roles(section: Slide, query: Query, hits: pd.DataFrame) -> pd.Series:
    """Whether each cell of a slide is of the query, a hit or neither, ``[N]``."""
    names = section.adata.obs_names
    one = query.obs.iloc[query.chosen]
    found = pd.Series("other", index=names)
    found[names.isin(hits.loc[hits[keys.SLIDE_ID].astype(str) == section.slide_id, "id"])] = "hit"
    found[names.isin(one.index[one[keys.SLIDE_ID].astype(str) == section.slide_id])] = "query"
    return found


def _names(section: Slide, color: str) -> pd.Series:
    """Values of a column as text, ``[N]``; none of a slide of the query that does not have it."""
    values = section.adata.obs.get(color, pd.Series(np.nan, section.adata.obs_names))
    return values.astype(str).where(values.notna())


def _middle(cells: pd.DataFrame) -> int:
    """Row of the cell nearest to the middle of those on its slide."""
    first = (cells[keys.SLIDE_ID].astype(str) == str(cells[keys.SLIDE_ID].iloc[0])).to_numpy()
    pos = cells[["x_um", "y_um"]].to_numpy()
    away = np.linalg.norm(pos - pos[first].mean(0), axis=1)
    return int(np.where(first, away, np.inf).argmin())
