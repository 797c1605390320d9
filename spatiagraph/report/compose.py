"""``write_report``: the report of one slide."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

import spatiagraph
from spatiagraph import keys
from spatiagraph.data.slide import Slide
from spatiagraph.plot.colors import categories, category_colors, match_categories
from spatiagraph.plot.curves import score_bars, training_curves
from spatiagraph.plot.maps import spatial
from spatiagraph.report.niches import (
    central_cells,
    distinct_hits,
    draw_hits,
    inner_cells,
    niche_window_um,
)
from spatiagraph.report.page import Report
from spatiagraph.retrieval.index import NicheIndex

_MAX_MISSING = 40  # genes named in the coverage section


def write_report(
    path: str | os.PathLike[str],
    *,
    slide: Slide,
    adata: AnnData | None = None,
    title: str | None = None,
    run: Mapping[str, Any] | None = None,
    history: pd.DataFrame | None = None,
    domains: Mapping[str, Sequence | pd.Series] | None = None,
    labels: str | None = None,
    scores: pd.DataFrame | None = None,
    highlight: str | None = None,
    index: NicheIndex | None = None,
    embedding: str = keys.embedding_key("context", "niche"),
    queries: Sequence[int] | None = None,
    num_hits: int = 5,
    window_um: float | None = None,
    crop_px: int = 96,
    coverage: pd.DataFrame | None = None,
    missing: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> Path:
    """Write one self-contained HTML file about a slide: what was run, and what came out.

    Only what is given is shown.

    Args:
        path: File to write.
        slide: The slide, with its image if it has one.
        adata: Its cells with embeddings; ``slide.adata`` by default.
        title: Title of the page.
        run: What was run: arguments, seed, version, as ``fit`` records them.
        history: Loss of every epoch.
        domains: Name → domain of each cell ``[N]``, such as one for the niche level and one for
            the tissue level.
        labels: Column of ``obs`` with the expert's (or planted) domains, to show beside them.
        scores: One row per method, its name in the index; a column ``ARI`` is drawn as bars, with
            ``ARI_std`` as error.
        highlight: Row of ``scores`` to set off.
        index: Index that holds the cells of the slide.
        embedding: Slot of ``obsm`` the index was built from.
        queries: Rows of cells to search for; by default a typical one of the three largest
            domains.
        num_hits: Hits to show for each.
        window_um: Side of the square shown around a hit; eight cells by default. Hits are at
            least this far apart.
        crop_px: Side of the image crops in pixels.
        coverage: How many genes of the model each slide has.
        missing: Genes of the model that were not measured.
        warnings: What to know before trusting the results.

    Returns:
        The path.

    Raises:
        ValueError: If domains or labels do not have one value per cell, or the index does not
            hold the slide.
        OSError: If the file cannot be written.
    """
    adata = slide.adata if adata is None else adata
    run = dict(run or {})
    truth = _labels(adata, labels)
    groups = {name: _per_cell(values, name, slide) for name, values in (domains or {}).items()}
    page = Report(
        title or f"Niches of {slide.slide_id}",
        f"{run.get('model', 'spatiagraph')} on slide {slide.slide_id}",
    )
    page.add_numbers(_numbers(slide, run, scores, highlight))
    if warnings:
        page.section("Warnings").add_warnings(list(warnings))
    _add_run(page, slide, run)
    if scores is not None and len(scores):
        _add_scores(page, scores, highlight, labels)
    if history is not None and len(history):
        _add_training(page, history)
    if groups or truth is not None:
        _add_maps(page, slide, groups, truth, labels)
    if index is not None:
        shown = next(iter(groups.values()), truth)
        _add_hits(
            page,
            slide,
            adata,
            index,
            embedding,
            shown,
            truth,
            queries,
            num_hits,
            window_um,
            crop_px,
        )
    if coverage is not None:
        _add_coverage(page, coverage, missing)
    return page.write(path)


def _labels(adata: AnnData, column: str | None) -> pd.Series | None:
    if column is None:
        return None
    if column not in adata.obs:
        raise ValueError(f"Expected obs[{column!r}], found {list(map(str, adata.obs.columns))}")
    return adata.obs[column].reset_index(drop=True)


def _per_cell(values: Sequence | pd.Series, name: str, slide: Slide) -> pd.Series:
    series = pd.Series(values).reset_index(drop=True)
    if len(series) != slide.num_cells:
        raise ValueError(
            f"Expected a domain per cell in {name!r}, got {len(series)} for {slide.num_cells} cells"
        )
    return series


def _numbers(
    slide: Slide, run: Mapping[str, Any], scores: pd.DataFrame | None, highlight: str | None
) -> dict[str, Any]:
    numbers: dict[str, Any] = {"cells": slide.num_cells, "genes measured": slide.num_genes}
    if "num_genes" in run:
        numbers["genes in the model"] = run["num_genes"]
    if slide.image is not None:
        numbers["image"] = f"{slide.image.mpp:.3g} µm/px"
    if "max_epochs" in run:
        numbers["epochs"] = run["max_epochs"]
    if "seed" in run:
        numbers["seed"] = run["seed"]
    if scores is not None and "ARI" in scores and highlight is not None:
        numbers["ARI"] = f"{scores['ARI'][highlight]:.2f}"
    return numbers


def _add_run(page: Report, slide: Slide, run: Mapping[str, Any]) -> None:
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
    if not run:
        page.section("What was run").add_table({k: v for k, v in facts.items() if v is not None})
        return
    nested = {k: v for k, v in run.items() if isinstance(v, Mapping)}
    page.section("What was run").add_table({k: v for k, v in facts.items() if v is not None})
    page.add_table({k: v for k, v in run.items() if k not in nested}, fold="Arguments of the run")
    if isinstance(run.get("slides"), Mapping) and run["slides"]:
        table = pd.DataFrame.from_dict(run["slides"], orient="index").rename_axis("slide")
        page.add_table(table, fold="Slides the model was trained on")


def _add_scores(
    page: Report, scores: pd.DataFrame, highlight: str | None, labels: str | None
) -> None:
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


def _add_training(page: Report, history: pd.DataFrame) -> None:
    first, last = history["loss"].iloc[[0, -1]]
    caption = f"Loss {first:.4g} → {last:.4g} in {len(history)} epochs"
    if "seconds" in history:
        caption += f", {history['seconds'].sum():.0f} s"
    page.section("Training").add_figure(
        training_curves(history), alt=f"Training curve. {caption}", caption=caption
    )


def _add_maps(
    page: Report,
    slide: Slide,
    groups: Mapping[str, pd.Series],
    truth: pd.Series | None,
    labels: str | None,
) -> None:
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
        maps.append(_map(slide, values, name, _palette(values, truth), caption))
    page.add_figures(maps)


def _map(
    slide: Slide, values: pd.Series, title: str, palette: Mapping[object, str], caption: str
) -> tuple[Axes, str, str]:
    ax = spatial(slide, values, title=title, palette=palette)
    return ax, f"Map of the cells coloured by {title}", caption


def _palette(values: pd.Series, truth: pd.Series | None) -> dict[object, str]:
    """Colours of domains; those of the labels they overlap most, where there are labels."""
    colors = category_colors(values)
    if truth is None or not truth.notna().any():
        return colors
    known = truth.notna() & values.notna()
    wanted = category_colors(truth)
    twin = match_categories(values[known], truth[known])
    taken = {wanted[t] for t in twin.values()}
    unused = iter([c for c in category_colors(pd.Series(range(20))).values() if c not in taken])
    return {k: wanted[twin[k]] if k in twin else next(unused, "#666666") for k in colors}


def _add_hits(
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
    if embedding not in adata.obsm:
        raise ValueError(f"Expected obsm[{embedding!r}], found {sorted(adata.obsm)}")
    vectors = np.asarray(adata.obsm[embedding])
    groups = pd.Series(["cells"] * slide.num_cells) if groups is None else groups
    side = niche_window_um(slide) if window_um is None else window_um
    inner = inner_cells(slide.pos, side / 2)
    rows = central_cells(vectors, groups, inner) if queries is None else np.asarray(queries)
    palette = _palette(groups, truth)
    page.section("Niches like these").add_text(
        f"For a typical cell of each large domain, the {num_hits} cells with the most similar "
        f"{index.metric} embedding, at least {side:.0f} µm apart so that no two share their "
        f"niche. d is the distance of the embeddings. Index: {index!r}."
    )
    for row in rows:
        hits = distinct_hits(index, row, vectors[row], slide, num=num_hits, apart_um=side)
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


def _add_coverage(page: Report, coverage: pd.DataFrame, missing: Sequence[str]) -> None:
    page.section("Gene panel").add_table(
        coverage, caption="Genes of the model that each slide has; the others are masked"
    )
    if len(missing):
        named = ", ".join(missing[:_MAX_MISSING])
        more = f" and {len(missing) - _MAX_MISSING} more" if len(missing) > _MAX_MISSING else ""
        page.add_text(f"Not measured: {named}{more}.")
