"""The picture of a search: surroundings of the query and of its hits."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatiagraph import keys
from spatiagraph.cli.query import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatiagraph.data.slide import Slide

_FORMATS = (".png", ".pdf", ".svg")
_CROP_PX = 128
_COLUMNS = 6
_TILE = 1.6  # inches
_PLAIN: dict[object, str] = {"query": "#D55E00", "hit": "#0072B2", "other": "#D9D9D9"}


def check_gallery(path: Path) -> None:
    """Refuse a picture that cannot be written, before the work."""
    from spatiagraph.cli.console import check_output_file

    if path.suffix not in _FORMATS:
        raise ValueError(f"Expected a gallery that ends in {', '.join(_FORMATS)}, got {path.name}")
    check_output_file(path, path.suffix)


def draw_gallery(
    path: Path,
    sections: "Sequence[Slide]",
    query: Query,
    hits: pd.DataFrame,
    *,
    color: str | None = None,
) -> None:
    """Draw the surroundings of a query's most typical cell and of the hits.

    Crops of the images if all slides have one and no colour is asked for; maps otherwise.

    Args:
        path: File to write.
        sections: The slides that were searched.
        query: What was asked.
        hits: What was found.
        color: Column of ``obs`` that colours maps; query and hits stand out when not given.
    """
    from spatiagraph.plot import gallery
    from spatiagraph.plot.galleries import as_rgb
    from spatiagraph.report.niches import niche_window_um

    by_id = {s.slide_id: s for s in sections}
    one = query.obs.iloc[query.chosen]
    typical = _middle(one)
    shown = [query.section or by_id[str(one[keys.SLIDE_ID].iloc[typical])]]
    shown += [by_id[str(name)] for name in hits[keys.SLIDE_ID]]
    pos = np.vstack([one[["x_um", "y_um"]].iloc[[typical]], hits[["x_um", "y_um"]]]).astype(float)
    names = [one.index[typical], *hits["id"]]
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
        gallery(rgb, titles, mask=np.concatenate(covered), window_um=side, frames=frames, save=path)
    else:
        _draw_maps(path, shown, pos, titles, side, query, hits, color)


def _draw_maps(
    path: Path,
    shown: "list[Slide]",
    pos: "NDArray[np.float64]",
    titles: list[str],
    side: float,
    query: Query,
    hits: pd.DataFrame,
    color: str | None,
) -> None:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from spatiagraph.plot import category_colors, spatial
    from spatiagraph.plot.canvas import DPI, add_scale_bar, save_figure

    values = [_roles(s, query, hits) if color is None else s.adata.obs[color] for s in shown]
    palette = _PLAIN
    if color is not None:
        palette = category_colors(pd.concat([v.astype(str) for v in values]))
        values = [v.astype(str) for v in values]
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    size = (columns * _TILE + 1.4, rows * (_TILE + 0.5) + 0.3)
    figure = Figure(figsize=size, layout="compressed", dpi=DPI)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    for number, (ax, section, value) in enumerate(zip(axes, shown, values, strict=False)):
        x, y = pos[number]
        half = side / 2
        spatial(
            section.pos,
            value,
            image=False,
            ax=ax,
            title="",
            palette=palette,
            legend=False,
            scale_bar=False,
            window_um=(x - half, y - half, x + half, y + half),
        )
        ax.plot(x, y, "o", markersize=7, markerfacecolor="none", markeredgecolor="black")
        ax.set_title(titles[number], fontsize=7)
    add_scale_bar(axes[len(shown) - 1], gap=0.05, thickness=0.02)  # no title is below the last
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=5, color=hue, label=str(name))
        for name, hue in palette.items()
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=7)
    save_figure(figure, path)


def _roles(section: "Slide", query: Query, hits: pd.DataFrame) -> pd.Series:
    """Whether each cell of a slide is of the query, a hit or neither, ``[N]``."""
    names = section.adata.obs_names
    one = query.obs.iloc[query.chosen]
    found = pd.Series("other", index=names)
    found[names.isin(hits.loc[hits[keys.SLIDE_ID].astype(str) == section.slide_id, "id"])] = "hit"
    found[names.isin(one.index[one[keys.SLIDE_ID].astype(str) == section.slide_id])] = "query"
    return found


def _middle(cells: pd.DataFrame) -> int:
    """Row of the cell nearest to the middle of those on its slide."""
    first = (cells[keys.SLIDE_ID].astype(str) == str(cells[keys.SLIDE_ID].iloc[0])).to_numpy()
    pos = cells[["x_um", "y_um"]].to_numpy()
    away = np.linalg.norm(pos - pos[first].mean(0), axis=1)
    return int(np.where(first, away, np.inf).argmin())
