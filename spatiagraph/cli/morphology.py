"""``spatiagraph morphology``."""

from pathlib import Path
from typing import Annotated

import typer

from spatiagraph.cli.nuclei import NUCLEI, Nuclei, nuclei_of
from spatiagraph.cli.options import SlideOptions, seed_option, with_slide_options


@with_slide_options
def morphology(
    slides: Annotated[
        list[Path],
        typer.Argument(help="Slides with images: .h5ad files, .zarr or vendors' folders."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the tables and the network.")],
    slide_options: SlideOptions,
    nuclei: Annotated[Nuclei | None, typer.Option(help=NUCLEI)] = None,
    size_px: Annotated[
        int, typer.Option(help="Side of the window around a cell in pixels.", min=8)
    ] = 32,
    window_um: Annotated[float, typer.Option(help="Side of the window in µm.", min=1.0)] = 13.6,
    max_cells: Annotated[
        int, typer.Option(help="Cells to train on, drawn from all slides.", min=4)
    ] = 20_000,
    epochs: Annotated[int, typer.Option(help="Passes over them.", min=1)] = 50,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu, mps, …")] = "auto",
    seed: Annotated[int, seed_option("Same seed, same network.")] = 0,
) -> None:
    """Measure the nucleus of every cell, and train a network that measures with a gradient.

    Writes a table of areas, axes and grey values for each slide, in µm, and under network/model the
    network, for losses that compare the morphology of images. Prints the share of the variance of
    each measure that the network explains in cells it has not seen. An interrupted training goes on
    where it stopped.
    """
    slide_options.check(slides)
    from spatiagraph._files import check_output_folder
    from spatiagraph.cli.console import (
        check_accelerator,
        file_names,
        print_table,
        quiet_libraries,
        say,
    )

    quiet_libraries()
    from spatiagraph._tables import write_csv
    from spatiagraph.data import measure_nuclei, read_nuclei
    from spatiagraph.data.recipe import Crop
    from spatiagraph.training import fit_morphology

    check_accelerator(accelerator)
    check_output_folder(out)
    sections = slide_options.read_all(slides)
    for section in sections:
        say(repr(section))
    foreground = nuclei_of(sections, nuclei)
    names = file_names([section.slide_id for section in sections])
    features, crop = {}, Crop(window_um, size_px)
    for section, name in zip(sections, names, strict=True):
        table = measure_nuclei(section, crop, foreground=foreground, progress=True)
        valid = int(table.notna().all(axis=1).sum())
        path = out / f"{name}.csv"
        write_csv(table, path, index=True)
        say(f"{valid:,} of {len(table):,} nuclei measured: {path}")
        features[section.slide_id] = table
    crops = read_nuclei(
        sections,
        features,
        crop=crop,
        max_cells=max_cells,
        seed=seed,
        progress=True,
    )
    fitted = fit_morphology(
        *crops,
        max_epochs=epochs,
        accelerator=accelerator,
        seed=seed,
        out=out / "network",
    )
    print_table(
        fitted.r2.to_frame("explained"), "\nshare of the variance explained in cells held out"
    )
    say(f"network in {out / 'network' / 'model'}")
