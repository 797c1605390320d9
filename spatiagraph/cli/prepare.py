"""``spatiagraph prepare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spatiagraph.cli.options import SlideOptions, with_slide_options

if TYPE_CHECKING:
    from spatiagraph.data.slide import Slide


@with_slide_options
def prepare(
    slide: Annotated[Path, typer.Argument(help="Slide to look at.")],
    slide_options: SlideOptions,
    out: Annotated[
        Path | None,
        typer.Option(help="Write it to this .zarr (needs [io]) or .h5ad, in µm, ready to use."),
    ] = None,
) -> None:
    """Check a slide, say what is in it, and write it so that it opens without options.

    A slide that cannot be right is refused with the rows, keys or files that are wrong.
    """
    from spatiagraph.cli.console import say
    from spatiagraph.data.writing import write

    section = slide_options.read(slide)
    for name, value in describe(section).items():
        say(f"{name:12}{value}")
    if out is not None:
        say(f"\nwritten to {write(section, out)}")


def describe(slide: "Slide") -> dict[str, str]:
    """What is in a slide, as a person would ask."""
    import numpy as np

    from spatiagraph import keys
    from spatiagraph.data.units import lattice, neighbor_distance

    width, height = np.ptp(slide.pos, axis=0)
    grid, near = lattice(slide.pos), neighbor_distance(slide.pos)
    kind = "cells" if grid is None else f"spots on a {grid.kind} lattice, pitch {grid.pitch:.1f} µm"
    seen = np.asarray((slide.counts != 0).sum(0)).ravel()
    what = "counts" if slide.expression == "counts" else "normalised values"
    notes = slide.adata.uns[keys.UNS]["read"]
    scale = notes.get("mpp")
    found = {
        "slide": slide.slide_id + ("" if slide.donor is None else f", donor {slide.donor}"),
        "format": str(notes.get("format", "unknown")),
        "cells": f"{slide.num_cells:,} {kind}",
        "place": f"{width:,.0f} × {height:,.0f} µm, nearest neighbour {near:.1f} µm",
        "scale": "µm already" if scale is None else f"{float(scale):.4g} µm per unit of the file",
        "genes": f"{slide.num_genes:,}, {int((seen == 0).sum()):,} of them never seen"
        + ("" if slide.gene_ids is None else ", with Ensembl ids"),
        "expression": f"{what}, median {np.median(slide.depth):,.0f} per cell",
    }
    if slide.image is not None:
        rows, columns, channels = slide.image.shape
        covered = slide.image.covers(slide.pos).mean()
        found["image"] = (
            f"{columns:,} × {rows:,} px, {channels} channels, {slide.image.num_levels} levels, "
            f"{slide.image.mpp:.4g} µm/px, covers {covered:.0%} of the cells"
        )
    else:
        found["image"] = "none"
    if slide.transcripts is not None:
        found["molecules"] = f"{len(slide.transcripts):,}"
        if "cell_id" in slide.transcripts:
            inside = slide.transcripts["cell_id"].notna().mean()
            found["molecules"] += f", {inside:.0%} of them in cells"
    return found
