"""Description of the domains of a report: markers, composition, amounts, neighbours."""

import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

from spatiagraph.data.markers import marker_genes
from spatiagraph.data.slide import Slide
from spatiagraph.graph.enrichment import neighbor_enrichment
from spatiagraph.plot.canvas import DPI
from spatiagraph.plot.colors import categories, category_colors, is_categorical, legend_text
from spatiagraph.plot.groups import (
    amounts_by_group,
    composition_bars,
    dot_plot,
    enrichment_map,
)
from spatiagraph.report.page import Report
from spatiagraph.report.projection import EXTRA, can_project, project
from spatiagraph.report.text import unit_of

_CELL_TYPES = re.compile(
    r"cell.?types?$|^types?$|subclass|cluster|leiden|annotation", re.IGNORECASE
)
_MAX_DOTS = 45  # genes of a dot plot
_MAX_PARTS = 30  # cell types that a chart can tell apart
_NEIGHBORS = 6
_ROWS = 16  # legend entries per column
UMAP = "X_umap"
"""``obsm``: an embedding in two dimensions, as scanpy names it."""


def add_description(
    page: Report,
    slide: Slide,
    domains: pd.Series,
    palette: Mapping[object, str],
    truth: pd.Series | None,
    labels: str | None,
    embedding: str,
) -> None:
    """Add the section on what domains are.

    Args:
        page: The report.
        slide: The slide.
        domains: Domain of each cell, ``[N]``.
        palette: Colours of the domains.
        truth: Known label of each cell, ``[N]``.
        labels: Name of the labels.
        embedding: Slot of ``obsm`` that a UMAP is made of where the slide has none.
    """
    unit, names = unit_of(slide), categories(domains)
    page.section("What the domains are")
    if len(names) > 1:
        _add_markers(page, slide, domains, palette, unit)
    parts = _known_parts(slide, truth, labels)
    for name, values in parts.items():
        ax = composition_bars(domains, values, group_palette=palette)
        alt = f"Bars of the shares of {name} in each domain"
        page.add_figure(ax, alt=alt, caption=f"{name} of the {unit}s of each domain")
    page.add_figure(
        amounts_by_group(_amounts(slide), domains, palette=palette),
        alt=f"Boxes of the amounts of each {unit} by domain",
        caption=f"Of each {unit}, by domain: boxes are quartiles, whiskers the 5th and 95th "
        "percentile",
    )
    _add_neighbours(page, slide, {"domains": domains, **parts}, unit)
    _add_umap(page, slide, embedding, {"domains": (domains, palette)}, parts, unit)


def _add_markers(
    page: Report, slide: Slide, domains: pd.Series, palette: Mapping[object, str], unit: str
) -> None:
    num = max(1, min(5, _MAX_DOTS // len(categories(domains))))
    ordered = pd.Series(pd.Categorical(domains, categories=categories(domains)))
    markers = marker_genes(slide, ordered, num=num)
    if not len(markers):
        return
    have = f"{unit}s that have it" if slide.expression == "counts" else f"{unit}s above the mean"
    said = "; ".join(
        f"{name}: {', '.join(dict.fromkeys(own['gene']))}"
        for name, own in markers.groupby("marks", sort=False, observed=True)
    )
    page.add_figure(
        dot_plot(markers, palette=palette, unit=unit),
        alt=f"Dot plot of the marker genes of the domains. {said}",
        caption=f"Genes that set each domain apart, under its colour. Size: share of {have}; "
        "colour: mean of log values, from the least to the largest of all domains. The domains "
        "were found in the same genes, so this describes them and is no test.",
    )


def _known_parts(slide: Slide, truth: pd.Series | None, labels: str | None) -> dict[str, pd.Series]:
    """Cell types and labels of the slide, by name."""
    parts = {}
    obs = slide.adata.obs
    named = [str(n) for n in obs if _CELL_TYPES.search(str(n)) and n != labels]
    named.sort(key=lambda name: "type" not in name.lower())  # types rather than clusters
    for name in named:
        values = obs[name].reset_index(drop=True)
        if is_categorical(values) and 1 < values.nunique() <= _MAX_PARTS:
            parts[name] = values
            break
    if truth is not None:
        parts[str(labels)] = truth
    return {n: v for n, v in parts.items() if 1 < v.nunique() <= _MAX_PARTS}


def _amounts(slide: Slide) -> dict[str, np.ndarray]:
    depth = "molecules" if slide.expression == "counts" else "sum of values"
    return {depth: np.asarray(slide.depth), "genes": np.diff(slide.counts.indptr)}


def _add_neighbours(page: Report, slide: Slide, groups: Mapping[str, pd.Series], unit: str) -> None:
    edges, maps = _edges(slide), []
    for name, values in groups.items():
        names = categories(values)
        if len(names) < 2:
            continue
        codes = pd.Categorical(values, categories=names).codes
        z = neighbor_enrichment(edges, codes)
        maps.append(
            (
                enrichment_map(z, names, title=name),
                f"Heat map of which {name} are neighbours more often than by chance",
                "",
            )
        )
    if maps:
        page.add_text(
            f"Which are neighbours more often (red) or less often (blue) than if the {unit}s were "
            f"shuffled: z of the edges to {_NEIGHBORS} nearest {unit}s, as squidpy's neighbourhood "
            "enrichment."
        )
        page.add_figures(maps)


def _edges(slide: Slide) -> torch.Tensor:
    near = min(_NEIGHBORS, slide.num_cells - 1)
    other = cKDTree(slide.pos).query(slide.pos, k=near + 1)[1][:, 1:]
    cell = np.repeat(np.arange(slide.num_cells), near)
    return torch.from_numpy(np.stack([other.ravel(), cell]))


def _add_umap(
    page: Report,
    slide: Slide,
    embedding: str,
    colored: Mapping[str, tuple[pd.Series, Mapping[object, str]]],
    parts: Mapping[str, pd.Series],
    unit: str,
) -> None:
    every = dict(colored) | {n: (v, category_colors(v)) for n, v in parts.items()}
    if UMAP in slide.adata.obsm:
        place, source = np.asarray(slide.adata.obsm[UMAP])[:, :2], UMAP
    elif embedding not in slide.adata.obsm:
        return
    elif not can_project():
        page.add_text(f"A UMAP stands here after pip install 'spatiagraph[{EXTRA}]'.")
        return
    else:
        place, source = project(slide.adata.obsm[embedding]), embedding
    drawn = np.flatnonzero(np.isfinite(place).all(axis=1))
    if not len(drawn):
        return
    order = np.random.default_rng(0).permutation(drawn)  # none lies on top of the others
    figure = Figure(figsize=(5.2 * len(every), 4.4), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, len(every), squeeze=False)[0]
    size = float(np.clip(40_000 / len(drawn), 1.0, 14.0))
    axes[0].set_ylabel("UMAP 2")
    for ax, (name, (values, palette)) in zip(axes, every.items(), strict=True):
        for group, hue in palette.items():
            own = order[(values == group).to_numpy()[order]]
            ax.scatter(
                *place[own].T, s=size, color=hue, label=legend_text(group), lw=0, rasterized=True
            )
        ax.set(title=name, xticks=[], yticks=[], xlabel="UMAP 1")
        ax.legend(
            loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9,
            markerscale=max(1.0, 5 / size**0.5), ncols=-(-len(palette) // _ROWS),
        )  # fmt: skip
    page.add_figure(
        figure,
        alt=f"UMAP of the {unit}s coloured by {' and '.join(every)}",
        caption=f"UMAP of the {unit}s, "
        + ("as given with the slide" if source == UMAP else f"of their embeddings {source}")
        + ": neighbours are alike; sizes of clouds and distances between them mean little",
    )
