"""``slide_page``: the report of one slide, section by section."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from anndata import AnnData
from matplotlib import rc_context
from tqdm.auto import tqdm

from spatiagraph import keys
from spatiagraph.data.labels import is_unlabelled
from spatiagraph.data.slide import Slide
from spatiagraph.inference.embedded import check_level, is_embedded, model_name
from spatiagraph.report.description import add_description
from spatiagraph.report.generation import Generation, add_generation
from spatiagraph.report.modalities import add_cross_modal, image_and_gene
from spatiagraph.report.page import Report
from spatiagraph.report.scatter import MAX_CELLS
from spatiagraph.report.scores import add_scores
from spatiagraph.report.sections import (
    add_coverage,
    add_hits,
    add_maps,
    add_run,
    add_scatter,
    add_training,
    domain_palette,
)
from spatiagraph.report.text import unit_of
from spatiagraph.retrieval.index import NicheIndex
from spatiagraph.training.folder import watched_of


def slide_page(
    slide: Slide,
    *,
    adata: AnnData | None = None,
    title: str | None = None,
    run: Mapping[str, Any] | None = None,
    history: pd.DataFrame | None = None,
    domains: Mapping[str, Sequence | pd.Series] | None = None,
    labels: str | None = None,
    unlabelled: Sequence[str] | None = None,
    scores: pd.DataFrame | None = None,
    highlight: str | None = None,
    index: NicheIndex | None = None,
    embedding: str | None = None,
    queries: Sequence[int] | None = None,
    num_hits: int = 5,
    window_um: float | None = None,
    crop_px: int = 96,
    generation: Sequence[Generation] = (),
    max_interactive: int = MAX_CELLS,
    coverage: pd.DataFrame | None = None,
    missing: Sequence[str] = (),
    warnings: Sequence[str] = (),
    progress: bool = False,
) -> Report:
    """Build the page of a slide: its domains, niches that are alike, and how that was found.

    Only what is given is shown. How it was found is folded away at the end.

    Args:
        slide: The slide, with its image if it has one.
        adata: Its cells with embeddings, in the same order; ``slide.adata`` by default.
        title: Title of the page.
        run: What was run: arguments, seed, version, as ``fit`` records them.
        history: Loss of every epoch.
        domains: Name → domain of each cell ``[N]``. The first ones are described.
        labels: Column of ``obs`` with the expert's (or planted) domains, to show beside them.
        unlabelled: Labels that mean there is none, in any case;
            unknown, NA, nan, undetermined and Ambiguous when ``None``.
        scores: One row per method, its name in the index; a column ``ARI`` is drawn as bars, with
            ``ARI_std`` as error.
        highlight: Row of ``scores`` to set off.
        index: Index that holds the cells of the slide.
        embedding: Slot of ``obsm`` the index was built from, and of the UMAP; by default the one
            that the index names, or else the first level above cells of an embedded slide.
        queries: Rows of cells to search for; by default a typical one of the three largest
            domains.
        num_hits: Hits to show for each.
        window_um: Side of the square shown around a hit; eight cells by default. Hits are at
            least this far apart.
        crop_px: Side of the image crops in pixels.
        generation: Images that a model made, beside what it made them from.
        max_interactive: Cells of the map to move about in, at most; 0 leaves it out.
        coverage: How many genes of the model each slide has.
        missing: Genes of the model that were not measured.
        warnings: What to know before trusting the results.
        progress: Show a progress bar.

    Returns:
        The page, to be written; sections that are added come before what is folded away.

    Raises:
        ValueError: If domains do not have one value per cell, ``adata`` has other cells, or the
            index does not hold the slide.
    """
    adata = slide.adata if adata is None else adata
    if not adata.obs_names.equals(slide.adata.obs_names):
        raise ValueError(
            f"Expected 'adata' with the {slide.num_cells} cells of slide {slide.slide_id!r}, in "
            f"order, got {adata.n_obs} others"
        )
    slot = _slot(adata, index) if embedding is None else embedding
    run = dict(run or {})
    truth = _labels(adata, labels, unlabelled)
    groups = {name: _per_cell(values, name, slide) for name, values in (domains or {}).items()}
    page = Report(
        title or f"Niches of {slide.slide_id}",
        f"{run.get('model', 'spatiagraph')} on slide {slide.slide_id}",
    )
    page.add_numbers(_numbers(slide, run, groups, scores, highlight))
    if warnings:
        page.section("Warnings").add_warnings(list(warnings))
    parts: list[Callable[[], None]] = []
    if groups or truth is not None:
        parts.append(lambda: add_maps(page, slide, groups, truth, labels, scores, highlight))
    if groups:
        first = next(iter(groups.values()))
        colors = domain_palette(first, truth)
        parts.append(lambda: add_description(page, slide, first, colors, truth, labels, slot))
    if scores is not None and len(scores):
        parts.append(lambda: add_scores(page, scores, highlight, labels))
    if max_interactive > 0:
        parts.append(lambda: add_scatter(page, slide, groups, truth, labels, max_interactive))
    if index is not None:
        shown = next(iter(groups.values()), truth)
        options = (shown, truth, queries, num_hits, window_um, crop_px)
        parts.append(lambda: add_hits(page, slide, adata, index, slot, *options))
    if aligned := image_and_gene(adata):
        groups_shown = next(iter(groups.values()), truth)
        parts.append(
            lambda: add_cross_modal(
                page, slide, aligned, groups_shown, truth, num_hits=num_hits, crop_px=crop_px
            )
        )
    parts += [partial(add_generation, page, made) for made in generation]
    parts.append(lambda: add_run(page, slide, run))
    if history is not None and len(history):
        parts.append(lambda: add_training(page, history, watched_of(run)))
    if coverage is not None:
        parts.append(lambda: add_coverage(page, coverage, missing))
    with rc_context({"text.parse_math": False}):  # names of the user are no formulas
        for add in tqdm(parts, desc="report", unit="part", disable=not progress):
            add()
    return page


def _slot(adata: AnnData, index: NicheIndex | None) -> str:
    """Slot of an index, or of the first level of an embedded slide; empty where there is none."""
    if index is not None and index.key is not None:
        return index.key
    if not is_embedded(adata):
        return ""
    return keys.embedding_key(model_name(adata), check_level(adata, None))


def _labels(adata: AnnData, column: str | None, none: Sequence[str] | None) -> pd.Series | None:
    if column is None:
        return None
    if column not in adata.obs:
        raise ValueError(f"Expected obs[{column!r}], found {list(map(str, adata.obs.columns))}")
    values = adata.obs[column].reset_index(drop=True)
    unknown = is_unlabelled(values, none)
    if unknown.any():
        values = values.mask(unknown)
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.cat.remove_unused_categories()
    return values


def _per_cell(values: Sequence | pd.Series, name: str, slide: Slide) -> pd.Series:
    series = pd.Series(values).reset_index(drop=True)
    if len(series) != slide.num_cells:
        raise ValueError(
            f"Expected a domain per cell in {name!r}, got {len(series)} for {slide.num_cells} cells"
        )
    return series


def _numbers(
    slide: Slide,
    run: Mapping[str, Any],
    domains: Mapping[str, pd.Series],
    scores: pd.DataFrame | None,
    highlight: str | None,
) -> dict[str, Any]:
    numbers: dict[str, Any] = {
        f"{unit_of(slide)}s": slide.num_cells,
        "genes measured": slide.num_genes,
    }
    if "num_genes" in run:
        numbers["genes in the model"] = run["num_genes"]
    if slide.image is not None:
        numbers["image"] = f"{slide.image.mpp:.3g} µm/px"
    for groups in list(domains.values())[:1]:
        numbers["domains"] = groups.nunique()
    if scores is not None and "ARI" in scores:
        for ari in scores.loc[scores.index == highlight, "ARI"]:
            numbers["ARI"] = f"{ari:.2f}"
    return numbers
