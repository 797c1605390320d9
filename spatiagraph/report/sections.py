"""The sections of a report, one function each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import spatiagraph
from spatiagraph import keys
from spatiagraph.data.image import SlideImage
from spatiagraph.data.notes import our_notes
from spatiagraph.data.slide import Slide
from spatiagraph.inference.embedded import level_names
from spatiagraph.plot.canvas import DPI
from spatiagraph.plot.colors import PALETTE, categories, category_colors, match_categories
from spatiagraph.plot.curves import training_curves
from spatiagraph.plot.maps import spatial
from spatiagraph.report.coloring import scatter_columns
from spatiagraph.report.niches import (
    central_cells,
    distinct_hits,
    draw_hits,
    niche_window_um,
)
from spatiagraph.report.page import Report
from spatiagraph.report.scatter import cell_scatter
from spatiagraph.report.scores import verdict
from spatiagraph.report.text import unit_of
from spatiagraph.retrieval.apart import inner_cells
from spatiagraph.retrieval.index import NicheIndex
from spatiagraph.tasks.base import Watched
from spatiagraph.training.health import progress_of, run_warnings

_METRICS = {"cosine": "cosine distance", "l2": "Euclidean distance"}
_MAX_MISSING = 40  # genes named in the coverage section
_HALF, _THIRD = 5.0, 3.2  # inches of a map, of which two or three stand side by side


def add_run(page: Report, slide: Slide, run: Mapping[str, Any]) -> None:
    """Add the section on the run and its input."""
    x0, y0 = slide.pos.min(0)
    x1, y1 = slide.pos.max(0)
    facts: dict[str, Any] = {
        "slide": slide.slide_id,
        "donor": slide.donor,
        f"{unit_of(slide)}s": slide.num_cells,
        "genes measured": slide.num_genes,
        "expression": "raw counts" if slide.expression == "counts" else "normalised values",
        "size": f"{x1 - x0:.0f} × {y1 - y0:.0f} µm",
        "image": "none" if slide.image is None else _of_image(slide.image),
        "molecules": None if slide.transcripts is None else len(slide.transcripts),
        "spatiagraph": run.get("version", spatiagraph.__version__),
    }
    page.appendix("What was run").add_table({k: v for k, v in facts.items() if v is not None})
    plain = {k: v for k, v in run.items() if not isinstance(v, Mapping)}
    if plain:
        page.add_table(plain, fold="Arguments of the run")
    if isinstance(run.get("slides"), Mapping) and run["slides"]:
        table = pd.DataFrame.from_dict(run["slides"], orient="index").rename_axis("slide")
        page.add_table(table, fold="Slides the model was trained on")


def _of_image(image: SlideImage) -> str:
    height, width, channels = image.shape
    return f"{width} × {height} px of {image.mpp:.3g} µm, {channels} channels"


def add_training(page: Report, history: pd.DataFrame, watched: Watched) -> None:
    """Curves of the run, how far it took the model, and what is wrong with it."""
    curves = training_curves(history)
    caption = progress_of(history).replace("loss", "Loss", 1)
    if "val_loss" in history and history["val_loss"].notna().any():
        low = int(history["val_loss"].argmin())
        caption += (
            f", lowest validation loss {history['val_loss'].iloc[low]:.4g} in epoch "
            f"{int(history['epoch'].iloc[low]) + 1}"
        )
    if "seconds" in history:
        caption += f", {history['seconds'].sum():.0f} s"
    page.appendix("Training")
    page.add_warnings(run_warnings(history, watched))
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
    scores: pd.DataFrame | None,
    ours: str | None,
) -> None:
    """The domains, the labels and the image, one map each; and whose domains agree best."""
    page.section("Domains on the slide")
    told = "" if scores is None else verdict(scores, str(ours))
    if told:
        page.add_text(f"Agreement with “{labels}”: {told}")
    shown: list[tuple[pd.Series, str, Mapping[object, str], str]] = []
    for name, values in groups.items():
        matched = truth is not None and truth.notna().any()
        caption = f"Colours follow the {labels} each domain overlaps most" if matched else ""
        shown.append((values, name, domain_palette(values, truth), caption))
    if truth is not None:
        shown.append((truth, str(labels), category_colors(truth), "As given with the slide"))
    many = len(shown) + (slide.image is not None) > 2
    maps: list[tuple[Any, str, str]] = []
    for values, title, palette, caption in shown:
        ax = _map_axes(slide, many)
        spatial(slide, values, title=title, palette=palette, legend="below", ax=ax)
        maps.append((ax, f"Map of the {unit_of(slide)}s coloured by {title}", caption))
    if slide.image is not None:
        ax = spatial(slide, None, alpha=0, title="Image", ax=_map_axes(slide, many))
        maps.append((ax, f"The slide image, without {unit_of(slide)}s", ""))
    page.add_figures(maps)


def _map_axes(slide: Slide, many: bool) -> Axes:
    """Axes of the shape of the slide, as wide for every map, three or two of which make a row."""
    wide, high = np.maximum(np.ptp(slide.pos, axis=0), 1.0)
    width = _THIRD if many else _HALF
    height = float(np.clip(width * high / wide, width / 6, width * 1.6))
    return Figure(figsize=(width, height), dpi=DPI).add_axes((0, 0, 1, 1))


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
    unit = unit_of(slide)
    page.section("Niches like these").add_text(
        f"For a typical {unit} of each large domain, the {num_hits} {unit}s with the most similar "
        f"surroundings, at least {side:.0f} µm apart so that no two share them; fewer where no "
        f"more are among the quarter of all {unit}s that is most like it. d is the "
        f"{_METRICS[index.metric]} of their embeddings."
    )
    for row in rows:
        hits = distinct_hits(index, int(row), slide, num=num_hits, apart_um=side)
        name, group = slide.adata.obs_names[row], groups.iloc[row]
        if not len(hits.row):
            page.add_text(f"{name}, of domain {group}: no other place is like it.")
            continue
        figure = draw_hits(slide, row, hits, groups, palette, window_um=side, crop_px=crop_px)
        same = int((groups.iloc[hits.row] == group).sum())
        page.add_figure(
            figure,
            alt=f"Surroundings of {unit} {name} and of the {len(hits.row)} {unit}s most like it",
            caption=f"{name}, of domain {group}: {same} of {len(hits.row)} hits are of it too. "
            f"Squares are {side:.0f} µm wide"
            + (", image above and domains below" if slide.image is not None else ""),
        )
    if len(categories(groups)) > 1:
        page.add_text(
            f"Dots are {unit}s, coloured as in the maps; the ring marks the {unit} itself."
        )


def add_coverage(page: Report, coverage: pd.DataFrame, missing: Sequence[str]) -> None:
    """Add the section on the genes of the model that were measured."""
    page.appendix("Gene panel").add_table(
        coverage, caption="Genes of the model that each slide has; the others are masked"
    )
    if len(missing):
        named = ", ".join(missing[:_MAX_MISSING])
        more = f" and {len(missing) - _MAX_MISSING} more" if len(missing) > _MAX_MISSING else ""
        page.add_text(f"Not measured: {named}{more}.")


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
    columns = scatter_columns(slide, first, hidden=_of_levels(slide))
    scatter = cell_scatter(slide, columns, palettes=palettes, max_cells=max_cells)
    unit = unit_of(slide)
    page.section(f"Explore the {unit}s").add_text(
        f"Move over a {unit} to see what is known of it. Drag to move, turn the wheel to zoom."
    ).add_scatter(scatter)


def _of_levels(slide: Slide) -> set[str]:
    """Columns of ``obs`` with groups of a model's levels: where a rule divided, not biology."""
    name = our_notes(slide.adata).get("name", "")
    return {keys.group_key(name, level) for level in level_names(slide.adata)}
