"""``report_cohort``: all slides of a cohort on one page, with maps that are counts per pixel."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from spatiagraph import keys
from spatiagraph.data.cohort import Cohort
from spatiagraph.data.cohort.embedded import embedding_notes
from spatiagraph.inference.cohort_domains import cohort_domains
from spatiagraph.inference.embedded import choose_level
from spatiagraph.plot.colors import category_colors
from spatiagraph.plot.raster import MAX_PX, raster_map, rasterize
from spatiagraph.report.page import Report

CELLS_PER_PX = 2
"""Cells of a pixel on a small slide, so that none is empty inside of tissue; on large ones more."""
MOST_MAPS = 40
"""Slides whose maps are drawn."""


def report_cohort(
    cohort: Cohort,
    path: str | os.PathLike[str] = "report.html",
    *,
    num_domains: int = 7,
    seed: int = 0,
) -> Path:
    """Show an embedded cohort on one page that works offline, one slide in memory at a time.

    Domains are k-means of the first level of the model, with centres from a sample of all slides,
    so a colour means the same on every map.

    Args:
        cohort: A cohort that :func:`~spatiagraph.embed` has embedded.
        path: The HTML file to write.
        num_domains: Number of domains.
        seed: Seed of the clustering.

    Raises:
        ValueError: The cohort was not embedded, or has fewer cells than domains.
    """
    notes = embedding_notes(cohort.part())
    level = choose_level(notes.levels, None)
    names = [f"domain {i + 1}" for i in range(num_domains)]
    colors = list(category_colors(pd.Series(pd.Categorical(names, names))).values())
    page = Report(f"{len(cohort)} slides of {cohort.path.name}", f"embedded by {notes.name}")
    page.add_numbers(
        {
            "slides": len(cohort),
            "cells": cohort.num_cells,
            "genes": len(cohort.recipe.panel),
            "tiles": sum(entry.num_tiles for entry in cohort.entries),
        }
    )
    figures: list[tuple[Axes, str, str]] = []
    shares: dict[str, dict[str, float]] = {}
    for found in cohort_domains(
        cohort, keys.embedding_key(notes.name, level), num_domains, seed=seed
    ):
        name, placed = found.slide.slide_id, found.domain[found.domain >= 0]
        share = np.bincount(placed, minlength=num_domains) / max(1, len(placed))
        shares[name] = dict(zip(names, share.round(3).tolist(), strict=True))
        if len(figures) < MOST_MAPS:
            most = round(float(np.sqrt(len(found.domain) / CELLS_PER_PX)))
            raster = rasterize(found.slide.pos, found.domain, min(MAX_PX, max(1, most)))
            caption = f"{name}: {len(found.domain):,} cells, {raster.pixel_um:.3g} µm a pixel"
            alt = f"Map of the domains of slide {name}"
            figures.append((raster_map(raster, colors, title=name), alt, caption))
    page.section("Maps")
    page.add_text(
        f"The commonest of {num_domains} domains in each pixel, fuller where more cells lie. A "
        "colour is the same domain on every slide."
    )
    page.add_figures(figures)
    if len(cohort) > len(figures):
        page.add_text(f"The first {len(figures)} of {len(cohort)} slides are drawn.")
    table = pd.DataFrame.from_dict(shares, orient="index")
    table.index.name = "slide"
    page.section("Domains").add_table(table, caption="Share of each domain in the cells of a slide")
    page.section("Slides").add_table(_slides(cohort))
    return page.write(path)


def _slides(cohort: Cohort) -> pd.DataFrame:
    rows = {
        entry.slide_id: {
            "donor": "–" if entry.donor is None else entry.donor,
            "cells": entry.num_cells,
            "genes": entry.num_genes,
            "of the panel": f"{entry.panel_coverage:.0%}",
            "tiles": entry.num_tiles,
        }
        for entry in cohort.entries
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index.name = "slide"
    return table
