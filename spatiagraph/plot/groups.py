"""Figures of groups of cells: markers, composition, amounts, neighbours."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy
from numpy.typing import NDArray

from spatiagraph.plot.canvas import DPI, new_axes, save_figure
from spatiagraph.plot.colors import categories, category_colors, legend_text

_LARGEST = 130.0  # points squared, of a dot that all cells have
_MAX_GROUPS = 30


def dot_plot(
    markers: pd.DataFrame,
    *,
    palette: Mapping[object, str] | None = None,
    unit: str = "cell",
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Marker genes of groups: the size of a dot is the share of cells, its colour the mean.

    Means are drawn between the least and the largest of the groups, gene by gene.

    Args:
        markers: What :func:`~spatiagraph.data.markers.marker_genes` gives.
        palette: Colours of the groups, by which the genes of each are underlined.
        unit: Name of a row of the slide, for the legend.
        save: File to write.

    Raises:
        ValueError: There is no marker.
    """
    if not len(markers):
        raise ValueError("Expected marker genes, got none")
    genes = list(dict.fromkeys(markers["gene"]))
    names = list(dict.fromkeys(markers["group"]))
    wide = {
        value: markers.pivot_table(
            index="group", columns="gene", values=value, sort=False, observed=True
        ).loc[names, genes]
        for value in ("mean", "share")
    }
    mean, share = (wide[value].to_numpy() for value in ("mean", "share"))
    span = np.ptp(mean, axis=0)
    scaled = (mean - mean.min(axis=0)) / np.where(span > 0, span, 1.0)
    size = (2.6 + 0.28 * len(genes), 1.6 + 0.3 * len(names))
    figure = Figure(figsize=size, layout="constrained", dpi=DPI)
    ax = figure.add_subplot()
    x, y = np.meshgrid(np.arange(len(genes)), np.arange(len(names)))
    dots = ax.scatter(
        x, y, s=_LARGEST * share, c=scaled, cmap="Reds", vmin=0, vmax=1, edgecolors="#555555",
        linewidths=0.4,
    )  # fmt: skip
    ax.set_xticks(range(len(genes)), genes, rotation=90, fontsize=9)
    ax.set_yticks(range(len(names)), [str(n) for n in names], fontsize=9)
    ax.set_xlim(-0.7, len(genes) - 0.3)
    ax.set_ylim(len(names) - 0.4, -0.9)
    colors = category_colors(pd.Series(pd.Categorical(names, categories=names)), palette)
    _mark_rows(ax, {name: colors[name] for name in names})  # rows keep the order of markers
    marks = markers.drop_duplicates("gene")["marks"].tolist()
    for name in names:
        own = [i for i, group in enumerate(marks) if group == name]
        if own:
            ends = [min(own) - 0.4, max(own) + 0.4]
            ax.plot(ends, [-0.75] * 2, color=colors[name], lw=4, solid_capstyle="butt")
    ax.spines[["top", "right"]].set_visible(False)
    handles = [
        Line2D([], [], linestyle="", marker="o", color="#999999", markersize=np.sqrt(_LARGEST * s),
               label=f"{s:.0%}")
        for s in (0.25, 0.5, 1.0)
    ]  # fmt: skip
    figure.legend(
        handles=handles, title=f"{unit}s with it", loc="outside right upper", frameon=False,
        fontsize=9, title_fontsize=9,
    )  # fmt: skip
    bar = figure.colorbar(dots, ax=ax, shrink=0.5, pad=0.02, aspect=12, anchor=(0.0, 0.0))
    bar.set_ticks([0, 1], labels=["least", "most"])
    bar.ax.tick_params(labelsize=9)
    bar.set_label("mean", fontsize=9)
    save_figure(figure, save)
    return figure


def _mark_rows(ax: Axes, colors: Mapping[object, str]) -> None:
    """A square in the colour of its group before each row, so that it is found on the map."""
    whole: Any = ax.figure
    for row, hue in enumerate(colors.values()):
        ax.plot(
            0, row, "s", color=hue, markersize=7, clip_on=False,
            transform=offset_copy(ax.get_yaxis_transform(), whole, x=-8, units="points"),
        )  # fmt: skip
    ax.tick_params(axis="y", left=False, pad=14)


def composition_bars(
    groups: pd.Series,
    parts: pd.Series,
    *,
    palette: Mapping[object, str] | None = None,
    group_palette: Mapping[object, str] | None = None,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Shares of parts, such as cell types, in each group.

    Args:
        groups: Group of each cell, ``[N]``.
        parts: What it is, ``[N]``; cells of which it is not known are left out.
        palette: Colours of the parts.
        group_palette: Colours of the groups, which mark the rows; none when not given.
        ax: Axes to draw into; new ones when not given.
        save: File to write.
    """
    table = pd.crosstab(groups.to_numpy(), parts.to_numpy(), normalize="index")
    colors = category_colors(parts, palette)
    rows = [name for name in categories(groups) if name in table.index]
    table = table.loc[rows, [name for name in colors if name in table]]
    ax = new_axes(ax, (6.4, 1.1 + 0.34 * len(table)))
    start = np.zeros(len(table))
    y = np.arange(len(table))
    for name in table:
        share = table[name].to_numpy()
        ax.barh(y, share, left=start, color=colors[name], label=legend_text(name), height=0.8, lw=0)
        start += share
    ax.set_yticks(y, [str(n) for n in table.index], fontsize=9)
    if group_palette is not None:
        _mark_rows(ax, {name: group_palette[name] for name in table.index})
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(left=False)
    columns = -(-len(table.columns) // 16)
    ax.legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9, ncols=columns
    )
    save_figure(ax.figure, save)  # type: ignore[arg-type]
    return ax


def amounts_by_group(
    amounts: Mapping[str, NDArray[np.floating]],
    groups: pd.Series,
    *,
    palette: Mapping[object, str] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Boxes of amounts, such as molecules and genes of each cell, by group.

    Boxes are quartiles, whiskers the 5th and 95th percentile.

    Args:
        amounts: Name → amount of each cell, ``[N]``; a panel for each.
        groups: Group of each cell, ``[N]``.
        palette: Colours of the groups.
        save: File to write.
    """
    colors = category_colors(groups, palette)
    size = (4.2 * len(amounts), 1.3 + 0.3 * len(colors))
    figure = Figure(figsize=size, layout="constrained", dpi=DPI)
    axes = figure.subplots(1, len(amounts), squeeze=False)[0]
    for ax, (name, values) in zip(axes, amounts.items(), strict=True):
        boxes = ax.boxplot(
            [np.asarray(values)[(groups == group).to_numpy()] for group in colors],
            orientation="horizontal",
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            widths=0.7,
            medianprops={"color": "black"},
        )
        for box, hue in zip(boxes["boxes"], colors.values(), strict=True):
            box.set(facecolor=hue, linewidth=0.6)
        ax.set_yticks(range(1, len(colors) + 1), [str(group) for group in colors], fontsize=9)
        ax.invert_yaxis()
        ax.set_xlim(left=0)
        ax.set_title(name, fontsize=10)
        ax.spines[["top", "right"]].set_visible(False)
    save_figure(figure, save)
    return figure


def enrichment_map(
    z: NDArray[np.floating],
    names: list[object],
    *,
    title: str = "",
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Heat map of the groups that are neighbours more often than by chance, or less often.

    Args:
        z: What :func:`~spatiagraph.graph.enrichment.neighbor_enrichment` gives, ``[K, K]``.
        names: Names of the groups, ``K``.
        title: Title.
        ax: Axes to draw into; new ones when not given.
        save: File to write.
    """
    side = 1.9 + 0.3 * len(names)
    ax = new_axes(ax, (side + 0.8, side))
    far = float(np.abs(z).max()) or 1.0
    picture = ax.imshow(z, cmap="RdBu_r", norm=TwoSlopeNorm(0, -far, far))
    shown = [str(name) for name in names]
    ax.set_xticks(range(len(shown)), shown, rotation=90, fontsize=9)
    ax.set_yticks(range(len(shown)), shown, fontsize=9)
    if len(shown) <= 12:
        for (row, column), value in np.ndenumerate(z):
            hue = "white" if abs(value) > 0.6 * far else "black"
            text = f"{value:.0f}" if abs(value) >= 0.5 else "0"
            ax.text(column, row, text, ha="center", va="center", fontsize=8, color=hue)
    ax.set_title(title, fontsize=10)
    whole = ax.figure
    assert isinstance(whole, Figure)
    bar = whole.colorbar(picture, ax=ax, shrink=0.6, pad=0.03)
    bar.set_label("z", fontsize=9)
    bar.ax.tick_params(labelsize=9)
    save_figure(whole, save)
    return ax
