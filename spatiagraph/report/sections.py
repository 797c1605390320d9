"""The sections of a report, one function each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import spatiagraph
from spatiagraph.data.slide import Slide
from spatiagraph.plot.colors import PALETTE, categories, category_colors, match_categories
from spatiagraph.plot.curves import score_bars, training_curves
from spatiagraph.plot.levels import hierarchy, known_levels
from spatiagraph.plot.maps import spatial
from spatiagraph.report.coloring import scatter_columns
from spatiagraph.report.niches import (
    central_cells,
    distinct_hits,
    draw_hits,
    inner_cells,
    niche_window_um,
)
from spatiagraph.report.page import Report
from spatiagraph.report.scatter import cell_scatter
from spatiagraph.retrieval.index import NicheIndex
from spatiagraph.training.health import collapse_warning

_MAX_MISSING = 40  # genes named in the coverage section


def add_run(page: Report, slide: Slide, run: Mapping[str, Any]) -> None:
    """Add the section on the run and its input."""
    x0, y0 = slide.pos.min(0)
    x1, y1 = slide.pos.max(0)
    facts: dict[str, Any] = {
        "slide": slide.slide_id,
        "donor": slide.donor,
        "cells": slide.num_cells,
        "genes measured": slide.num_genes,
        "expression": "raw counts" if slide.expression == "counts" else "normalised values",
        "size": f"{x1 - x0:.0f} × {y1 - y0:.0f} µm",
        "image": "none" if slide.image is None else repr(slide.image),
        "molecules": None if slide.transcripts is None else len(slide.transcripts),
        "spatiagraph": run.get("version", spatiagraph.__version__),
    }
    page.section("What was run").add_table({k: v for k, v in facts.items() if v is not None})
    plain = {k: v for k, v in run.items() if not isinstance(v, Mapping)}
    if plain:
        page.add_table(plain, fold="Arguments of the run")
    if isinstance(run.get("slides"), Mapping) and run["slides"]:
        table = pd.DataFrame.from_dict(run["slides"], orient="index").rename_axis("slide")
        page.add_table(table, fold="Slides the model was trained on")


def add_scores(
    page: Report, scores: pd.DataFrame, highlight: str | None, labels: str | None
) -> None:
    """Table and bars of the scores."""
    against = f" against obs['{labels}']" if labels else ""
    page.section("Scores")
    if "ARI" in scores:
        page.add_text(
            f"Agreement of the domains found{against}: the adjusted Rand index is 1 for the same "
            "domains and 0 for chance. The baselines beside it need no training."
        )
    page.add_table(scores.rename_axis("method"), highlight=highlight)
    if "ARI" in scores:
        ax = score_bars(
            scores,
            "ARI",
            error="ARI_std" if "ARI_std" in scores else None,
            highlight=highlight,
            title="Adjusted Rand index",
        )
        said = ", ".join(f"{name} {value:.2f}" for name, value in scores["ARI"].items())
        page.add_figure(ax, alt=f"Bars of the adjusted Rand index: {said}")


def add_training(page: Report, history: pd.DataFrame) -> None:
    """Curves of the run, and whether its embeddings collapsed."""
    curves = training_curves(history)
    first, last = history["loss"].iloc[[0, -1]]
    caption = f"Loss {first:.4g} → {last:.4g} in {len(history)} epochs"
    if "val_loss" in history and history["val_loss"].notna().any():
        low = int(history["val_loss"].argmin())
        caption += (
            f", lowest validation loss {history['val_loss'].iloc[low]:.4g} in epoch "
            f"{int(history['epoch'].iloc[low]) + 1}"
        )
    if "seconds" in history:
        caption += f", {history['seconds'].sum():.0f} s"
    page.section("Training")
    warning = collapse_warning(history)
    page.add_warnings([] if warning is None else [warning])
    page.add_figure(curves, alt=f"Training curve. {caption}", caption=caption)
    if "effective_rank" in history:
        page.add_text(
            "The effective rank is the number of dimensions the cell embeddings use; a fall "
            "towards 1 means that all cells become alike."
        )


def add_maps(
    page: Report,
    slide: Slide,
    groups: Mapping[str, pd.Series],
    truth: pd.Series | None,
    labels: str | None,
) -> None:
    """The image, the labels and the domains, one map each."""
    page.section("Domains on the slide")
    maps: list[tuple[Any, str, str]] = []
    if slide.image is not None:
        ax = spatial(slide, None, alpha=0, title="Image")
        maps.append((ax, "The slide image, without cells", ""))
    if truth is not None:
        caption = f"obs['{labels}'], as given with the slide"
        maps.append(_map(slide, truth, str(labels), category_colors(truth), caption))
    for name, values in groups.items():
        matched = truth is not None and truth.notna().any()
        caption = f"Colours follow the {labels} each domain overlaps most" if matched else ""
        maps.append(_map(slide, values, name, domain_palette(values, truth), caption))
    page.add_figures(maps)


def _map(
    slide: Slide, values: pd.Series, title: str, palette: Mapping[object, str], caption: str
) -> tuple[Axes, str, str]:
    ax = spatial(slide, values, title=title, palette=palette, legend="below")
    return ax, f"Map of the cells coloured by {title}", caption


def domain_palette(values: pd.Series, truth: pd.Series | None) -> dict[object, str]:
    """Colours of domains; those of the labels they overlap most, where there are labels."""
    colors = category_colors(values)
    if truth is None or not truth.notna().any():
        return colors
    known = truth.notna() & values.notna()
    wanted = category_colors(truth)
    twin = match_categories(values[known], truth[known])
    taken = {wanted[t] for t in twin.values()}
    unused = (c for c in PALETTE if c not in taken)
    return {k: wanted[twin[k]] if k in twin else next(unused, "#666666") for k in colors}


def add_hits(
    page: Report,
    slide: Slide,
    adata: AnnData,
    index: NicheIndex,
    embedding: str,
    groups: pd.Series | None,
    truth: pd.Series | None,
    queries: Sequence[int] | None,
    num_hits: int,
    window_um: float | None,
    crop_px: int,
) -> None:
    """Niches that are alike."""
    if embedding not in adata.obsm:
        raise ValueError(f"Expected obsm[{embedding!r}], found {sorted(adata.obsm)}")
    vectors = np.asarray(adata.obsm[embedding])
    groups = pd.Series(["cells"] * slide.num_cells) if groups is None else groups
    side = niche_window_um(slide) if window_um is None else window_um
    inner = inner_cells(slide.pos, side / 2)
    rows = central_cells(vectors, groups, inner) if queries is None else np.asarray(queries)
    palette = domain_palette(groups, truth)
    page.section("Niches like these").add_text(
        f"For a typical cell of each large domain, the {num_hits} cells with the most similar "
        f"{index.metric} embedding, at least {side:.0f} µm apart so that no two share their "
        f"niche. d is the distance of the embeddings. Index: {index!r}."
    )
    for row in rows:
        hits = distinct_hits(index, int(row), slide, num=num_hits, apart_um=side)
        figure = draw_hits(slide, row, hits, groups, palette, window_um=side, crop_px=crop_px)
        name, group = slide.adata.obs_names[row], groups.iloc[row]
        same = int((groups.iloc[hits.row] == group).sum())
        page.add_figure(
            figure,
            alt=f"Surroundings of cell {name} and of the {len(hits.row)} cells most like it",
            caption=f"{name}, of domain {group}: {same} of {len(hits.row)} hits are of it too. "
            f"Squares are {side:.0f} µm wide"
            + (", image above and domains below" if slide.image is not None else ""),
        )
    if len(categories(groups)) > 1:
        page.add_text("Dots are cells, coloured as in the maps; the ring marks the cell itself.")


def add_coverage(page: Report, coverage: pd.DataFrame, missing: Sequence[str]) -> None:
    """Add the section on the genes of the model that were measured."""
    page.section("Gene panel").add_table(
        coverage, caption="Genes of the model that each slide has; the others are masked"
    )
    if len(missing):
        named = ", ".join(missing[:_MAX_MISSING])
        more = f" and {len(missing) - _MAX_MISSING} more" if len(missing) > _MAX_MISSING else ""
        page.add_text(f"Not measured: {named}{more}.")


def add_levels(
    page: Report, slide: Slide, groups: Mapping[str, pd.Series], truth: pd.Series | None
) -> None:
    """Cells, niches and tissue regions side by side, where at least two of them are known."""
    levels: dict[str, Any] = dict(known_levels(slide))
    palettes: dict[str, dict[object, str]] = {}
    if groups:
        name, values = next(iter(groups.items()))
        levels["niche"] = values.rename(name)
        palettes["niche"] = domain_palette(values, truth)
    if len(levels) < 2:
        return
    axes = hierarchy(slide, **levels, palettes=palettes)
    figure = axes[0].figure
    assert isinstance(figure, Figure)
    page.section("Cells, niches, tissue").add_figure(
        figure,
        alt=f"Maps of the {', '.join(k for k in ('cell', 'niche', 'tissue') if k in levels)} level",
        caption="Lines on a map are the borders of the groups of the next one",
    )


def add_scatter(
    page: Report,
    slide: Slide,
    groups: Mapping[str, pd.Series],
    truth: pd.Series | None,
    labels: str | None,
    max_cells: int,
) -> None:
    """The map to move about in."""
    first = dict(groups) | ({} if truth is None else {str(labels): truth})
    palettes = {name: domain_palette(values, truth) for name, values in groups.items()}
    scatter = cell_scatter(
        slide, scatter_columns(slide, first), palettes=palettes, max_cells=max_cells
    )
    page.section("Explore the cells").add_text(
        "Move over a cell to see what is known of it. Drag to move, turn the wheel to zoom."
    ).add_scatter(scatter)
