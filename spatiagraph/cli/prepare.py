"""``spatiagraph prepare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spatiagraph.cli.options import SlideOptions, with_slide_options

if TYPE_CHECKING:
    from spatiagraph.data.slide import Slide

_SHALLOW = 10  # counts; a type cannot be told from fewer


@with_slide_options
def prepare(
    slides: Annotated[
        list[Path], typer.Argument(help="Slide to look at; with --cohort, one or many.")
    ],
    slide_options: SlideOptions,
    out: Annotated[
        Path | None,
        typer.Option(help="Write it to this .zarr (needs [io]) or .h5ad, in µm, ready to use."),
    ] = None,
    cohort: Annotated[
        Path | None,
        typer.Option(help="Write the slides, one after the other, into a cohort.zarr to train on."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="--cohort: folder of a run or model whose recipe they are prepared by."),
    ] = None,
    genes: Annotated[
        int | None,
        typer.Option(help="--cohort without --model: most variable genes to read; 1000.", min=2),
    ] = None,
    tile_size: Annotated[
        int | None,
        typer.Option(help="--cohort: cells of a tile, which is a mini-batch; 4096.", min=1),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="--cohort: part of the slides, 0/3 for the first third; then `merge`."),
    ] = None,
) -> None:
    """Check a slide, say what is in it, and write it so that it opens without options.

    A slide that cannot be right is refused with the rows, keys or files that are wrong. Warnings
    say what is odd about one that opens. With --cohort, slides become one store that is larger
    than memory; an interrupted command goes on where it stopped.
    """
    slide_options.check(slides)
    from spatiagraph._files import check_output_folder
    from spatiagraph.cli.console import say
    from spatiagraph.data.writing import check_target, write

    if cohort is None:
        given = {"--model": model, "--genes": genes, "--tile-size": tile_size, "--shard": shard}
        if odd := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"Expected --cohort with {', '.join(odd)}, got none")
        if len(slides) > 1:
            raise ValueError(
                f"Expected one slide, got {len(slides)}: pass --cohort to make a store of them"
            )
    else:
        from spatiagraph.cli.cohorts import SlidesOfFiles, make_cohort
        from spatiagraph.cli.early import check_model
        from spatiagraph.data.cohort.layout import cohort_place
        from spatiagraph.data.cohort.shards import as_shard

        if out is not None:
            raise ValueError("Expected --out or --cohort, got both")
        if model is not None and genes is not None:
            raise ValueError("Expected --model, which has its genes, or --genes, got both")
        if model is not None:
            check_model(model)
        cohort_place(cohort)
        check_output_folder(cohort.parent)
        files = SlidesOfFiles(slides, slide_options)
        if shard is not None:
            as_shard(shard)
        say(make_cohort(cohort, files, model, genes or 1000, tile_size, shard))
        return
    (slide,) = slides
    if out is not None:
        check_target(out)
        check_output_folder(out.parent)
    section = slide_options.read(slide)
    for name, value in describe(section).items():
        say(f"{name:12}{value}")
    for text in oddities(section):
        say(f"{'warning':12}{text}")
    if out is not None:
        say(f"\nwritten to {write(section, out)}")


def describe(slide: "Slide") -> dict[str, str]:
    """Summary of a slide for people."""
    import numpy as np

    from spatiagraph import keys
    from spatiagraph.data.read.controls import CONTROL_COUNTS
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
        "scale": "µm already"
        if scale is None
        else f"{float(scale):.4g} µm per unit of the raw file",
        "genes": f"{slide.num_genes:,}, {int((seen == 0).sum()):,} of them never seen"
        + ("" if slide.gene_ids is None else ", with Ensembl ids"),
        "expression": f"{what}, median {np.median(slide.depth):,.0f} per cell",
    }
    if scale is not None and "mpp_from" in notes:
        found["scale"] += f", from {notes['mpp_from']}"
    if CONTROL_COUNTS in slide.adata.obs:
        share = slide.adata.obs[CONTROL_COUNTS].sum() / slide.depth.sum()
        found["controls"] = f"{int(notes.get('controls', 0))} left out, {share:.2%} of the counts"
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


def oddities(slide: "Slide") -> list[str]:
    """Oddities to look at before trusting a slide that passed its checks."""
    from spatiagraph.data.transcripts import is_control
    from spatiagraph.data.units import CELL_SPACING_UM, lattice, neighbor_distance

    said = []
    low, high = CELL_SPACING_UM
    near = neighbor_distance(slide.pos)
    if lattice(slide.pos) is None and not (low <= near <= high) and slide.num_cells > 1:
        said.append(
            f"nearest neighbours are {near:.1f} µm apart, cells usually {low:g}–{high:g}: spots "
            "far apart, planes on top of each other, or another unit?"
        )
    controls = [name for name in slide.symbols if is_control([name])[0]]
    if controls:
        said.append(
            f"{len(controls)} genes are called like controls ({', '.join(controls[:3])}, …): drop "
            "them, or models learn them"
        )
    if slide.image is not None:
        outside = int((~slide.image.covers(slide.pos)).sum())
        if outside:
            said.append(f"{outside:,} cells lie outside of the image")
    shallow = int((slide.depth < _SHALLOW).sum())
    if slide.expression == "counts" and shallow > slide.num_cells / 10:
        said.append(f"{shallow:,} cells have fewer than {_SHALLOW} counts")
    return said
