"""Niches of a report: representatives, their nearest neighbours, their images."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.data.slide import Slide
from spatiagraph.plot.canvas import DPI, add_scale_bar, clear_frame
from spatiagraph.plot.colors import legend_text
from spatiagraph.plot.galleries import as_rgb
from spatiagraph.plot.maps import cell_spacing, spatial
from spatiagraph.retrieval.apart import hits_apart, inner_cells, usual_distance
from spatiagraph.retrieval.index import NicheIndex
from spatiagraph.retrieval.selection import X_UM, Y_UM

_TILE = 1.5  # inches


class Hits(NamedTuple):
    """Search hits of one cell.

    Attributes:
        row: Cells of the slide, nearest first, ``[K]``.
        distance: In embedding space, ``[K]``.
        away_um: From the query in the tissue, ``[K]``.
    """

    row: NDArray[np.int64]
    distance: NDArray[np.float64]
    away_um: NDArray[np.float64]


def central_cells(
    embeddings: NDArray[np.floating],
    groups: pd.Series,
    preferred: NDArray[np.bool_] | None = None,
    num: int = 3,
) -> NDArray[np.int64]:
    """The most typical cell of each of the largest groups.

    Args:
        embeddings: ``[N, D]``.
        groups: Group of each cell, ``[N]``.
        preferred: Cells to choose from where a group has any of them, ``[N]``.
        num: Number of groups.

    Returns:
        Rows, largest group first; typical is nearest to the mean of the group.
    """
    labels = groups.reset_index(drop=True).astype(object)
    finite = np.isfinite(embeddings).all(1)
    found = []
    for name in labels[finite].value_counts(sort=True).index[:num]:
        member = (labels == name).to_numpy() & finite
        center = embeddings[member].mean(0)
        choice = (
            member if preferred is None or not (member & preferred).any() else member & preferred
        )
        rows = np.flatnonzero(choice)
        found.append(rows[np.linalg.norm(embeddings[rows] - center, axis=1).argmin()])
    return np.array(found, dtype=np.int64)


def distinct_hits(
    index: NicheIndex, query: int, slide: Slide, *, num: int, apart_um: float
) -> Hits:
    """Cells with the niches most like one cell's, that share no cells with it or each other.

    None is less like it than a quarter of all cells are.

    Args:
        index: Index that holds the cells of this slide, maybe among others.
        query: Row of the cell in the slide.
        slide: The slide.
        num: Most hits.
        apart_um: Least distance between any two in the tissue.

    Raises:
        ValueError: If the index does not hold the cells of the slide.
    """
    items = _items_of(index, slide)
    row_of = np.full(index.num_items, -1)
    row_of[items[items >= 0]] = np.flatnonzero(items >= 0)
    obs = pd.DataFrame({keys.SLIDE_ID: "", X_UM: slide.pos[:, 0], Y_UM: slide.pos[:, 1]})

    def search(k: int, among: NDArray[np.bool_]) -> pd.DataFrame:
        where = np.zeros(index.num_items, dtype=bool)
        where[items[among]] = True
        hits = index.search_like([items[query]], k, where=where, include_query=True)
        return hits.assign(row=row_of[hits["row"]])

    free = (items >= 0) & (np.linalg.norm(slide.pos - slide.pos[query], axis=1) >= apart_um)
    free[query] = False
    inner = inner_cells(slide.pos, apart_um / 2)
    if inner[query] and (free & inner).any():
        free &= inner  # what is shown around a hit is tissue
    usual = usual_distance(search, items >= 0)
    table = hits_apart(search, obs, num, free, apart_um=apart_um, max_distance=usual)
    found = table["row"].to_numpy(np.int64) if len(table) else np.empty(0, np.int64)
    distance = table["distance"].to_numpy(np.float64) if len(table) else np.empty(0)
    return Hits(found, distance, np.linalg.norm(slide.pos[found] - slide.pos[query], axis=1))


def niche_window_um(slide: Slide, num_across: float = 8.0) -> float:
    """Side of a window that is some cells wide."""
    return num_across * cell_spacing(slide.pos)


def draw_hits(
    slide: Slide,
    query: int,
    hits: Hits,
    groups: pd.Series,
    palette: Mapping[object, str],
    *,
    window_um: float,
    crop_px: int,
) -> Figure:
    """A cell's niche and those like it: image above, cells coloured by group below.

    Args:
        slide: The slide.
        query: Row of the cell.
        hits: What was found.
        groups: Group of each cell, ``[N]``.
        palette: Colours of the groups.
        window_um: Side of the square shown around each cell.
        crop_px: Side of the image crops in pixels.
    """
    rows = np.concatenate([[query], hits.row])
    titles = [f"query\n{slide.adata.obs_names[query]}"] + [
        f"{name}\nd = {distance:.2g}, {away:.0f} µm"
        for name, distance, away in zip(
            slide.adata.obs_names[hits.row], hits.distance, hits.away_um, strict=True
        )
    ]
    lines = 1 if slide.image is None else 2
    figure = Figure(
        figsize=(len(rows) * _TILE + 1.2, lines * _TILE + 0.7), layout="constrained", dpi=DPI
    )
    axes = figure.subplots(lines, len(rows), squeeze=False)
    if slide.image is not None:
        crops, mask = slide.image.crops(slide.pos[rows], window_um, crop_px)
        for ax, crop, covered in zip(axes[0], crops, mask, strict=True):
            _draw_crop(ax, crop, bool(covered), window_um)
    for ax, row in zip(axes[-1], rows, strict=True):
        draw_surroundings(
            ax, slide, slide.pos[row], groups, palette, window_um, size_um=window_um / 9
        )
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title, fontsize=8)
    for ax in axes[:, 0]:
        for spine in ax.spines.values():
            spine.set(visible=True, linewidth=2)
    add_scale_bar(axes[-1, 0], gap=0.05, thickness=0.02)
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=5, color=hue, label=legend_text(name))
        for name, hue in palette.items()
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9)
    return figure


def draw_surroundings(
    ax: Axes,
    slide: Slide,
    center: NDArray[np.floating],
    groups: pd.Series,
    palette: Mapping[object, str],
    side_um: float,
    *,
    size_um: float | None = None,
) -> None:
    """The cells around a position, coloured by group, with a ring around the position itself.

    Args:
        ax: Axes to draw into.
        slide: The slide.
        center: The position in µm, ``[2]``.
        groups: Group of each cell, ``[N]``.
        palette: Colours of the groups.
        side_um: Side of the square shown.
        size_um: Diameter of the discs of cells without outlines; by default 0.9 of the distance to
            the nearest cell there.
    """
    x, y = center
    half, pos, outlines = side_um / 2, slide.pos, slide.outlines
    near = np.flatnonzero(np.abs(pos - center).max(1) <= half + side_um / 8)
    spatial(
        pos[near],
        groups.iloc[near],
        image=False,
        outlines=None if outlines is None else outlines.select(near),
        ax=ax,
        title="",
        size_um=size_um if outlines is None else None,
        palette=palette,
        legend=False,
        scale_bar=False,
        window_um=(x - half, y - half, x + half, y + half),
    )
    ax.plot(x, y, "o", markersize=7, markerfacecolor="none", markeredgecolor="black")


def _items_of(index: NicheIndex, slide: Slide) -> NDArray[np.int64]:
    """Row of the index for each cell of the slide, ``[N]``; -1 for cells without an embedding."""
    ids = index.obs.index
    own = np.arange(len(ids))
    if keys.SLIDE_ID in index.obs:
        own = np.flatnonzero((index.obs[keys.SLIDE_ID].astype(str) == slide.slide_id).to_numpy())
    rows = slide.adata.obs_names.get_indexer(ids[own])
    if len(own) == 0 or (rows < 0).any():
        raise ValueError(
            f"Expected cells of slide {slide.slide_id!r} in the index, found {(rows >= 0).sum()} "
            f"of it and {(rows < 0).sum()} others: build it with NicheIndex.from_slides"
        )
    items = np.full(slide.num_cells, -1, dtype=np.int64)
    items[rows] = own
    return items


def _draw_crop(ax: Axes, crop: NDArray, covered: bool, side: float) -> None:
    clear_frame(ax)
    ax.set_xlim(0, side)
    ax.set_ylim(side, 0)
    ax.set_aspect("equal")
    if covered:
        ax.imshow(as_rgb(crop), extent=(0, side, side, 0), vmin=0, vmax=1)
    else:
        ax.text(side / 2, side / 2, "outside\nthe image", ha="center", va="center", fontsize=7)
