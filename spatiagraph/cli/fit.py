"""``spatiagraph fit``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from spatiagraph.cli.options import SlideOptions, seed_option, with_slide_options


class Preset(StrEnum):
    """Sizes of SPATIA, SToFM, ST-Align and SpatialFormer."""

    tiny = "tiny"
    small = "small"
    base = "base"


@with_slide_options
def fit(
    slides: Annotated[
        list[Path],
        typer.Argument(
            help="Slides: .h5ad files, .zarr (SpatialData) or vendors' folders; or one cohort.zarr."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    slide_options: SlideOptions,
    model: Annotated[
        str,
        typer.Option(
            help="context: minutes on a laptop; spatia: tokens of genes and image; stofm: cells "
            "among a thousand others and virtual cells of the slide; st-align: image and genes of "
            "spots and niches, aligned; spatialformer: pairs of neighbouring cells as ranked "
            "genes; or a model of your own by its name, see --import."
        ),
    ] = "context",
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over all cells; as many as the model's steps take.", min=1),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the optimiser, at most.", min=1)
    ] = None,
    validation: Annotated[
        float | None,
        typer.Option(
            help="Share of each slide, in blocks, to score the model on and not to train on; the "
            "weights that did best there are kept. None when not given.",
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            help="Passes without a lower validation loss after which training stops; needs "
            "--validation.",
            min=1,
        ),
    ] = None,
    genes: Annotated[
        int | None, typer.Option(help="Most variable genes to read; 1000.", min=2)
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="Size of an embedding; 32, or that of the preset.", min=4)
    ] = None,
    window_um: Annotated[
        float | None,
        typer.Option(help="Side of the crop around a cell; 13.6, or the pitch of spots."),
    ] = None,
    neighbors: Annotated[
        int | None, typer.Option(help="context: neighbours of a cell in the graph; 8.", min=1)
    ] = None,
    niche_size: Annotated[
        int | None,
        typer.Option(help="context: a niche is a cell and this many nearest others; 15.", min=1),
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(help="All but context: its size; tiny. small is of spatia alone."),
    ] = None,
    gene_sets: Annotated[
        Path | None,
        typer.Option(help="st-align: GMT file of the gene sets to read, in place of --genes."),
    ] = None,
    orthologs: Annotated[
        Path | None,
        typer.Option(
            help="stofm: table of orthologues (BioMart, or two columns): slides of one species on "
            "the genes of another."
        ),
    ] = None,
    niche_um: Annotated[
        float | None, typer.Option(help="spatia: side of a niche in µm; 54.4.")
    ] = None,
    classify: Annotated[
        list[str] | None,
        typer.Option(help="spatia: column of obs to learn to classify; may be repeated."),
    ] = None,
    modules: Annotated[
        list[str] | None,
        typer.Option("--import", help="Python module that defines a model; may be repeated."),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; that of the model.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu, mps, …")] = "auto",
    seed: Annotated[int, seed_option("Same seed, same weights.")] = 0,
) -> None:
    """Train a model on slides.

    The folder of the run holds the model, a table of losses and what was run on what. After an
    interruption the same command goes on where it stopped, with the same result.
    """
    from spatiagraph.data.cohort.layout import is_cohort

    stored = len(slides) == 1 and is_cohort(slides[0])
    if stored:
        slide_options.check_unused(
            genes=genes,
            window_um=window_um,
            neighbors=neighbors,
            niche_size=niche_size,
            niche_um=niche_um,
            gene_sets=gene_sets,
            orthologs=orthologs,
            classify=classify or None,
        )
    else:
        slide_options.check(slides)
        for column in classify or ():
            slide_options.check(slides, classify=column)
    from spatiagraph._files import check_file
    from spatiagraph.cli.console import check_accelerator, quiet_libraries, say

    quiet_libraries()
    from spatiagraph import training
    from spatiagraph.cli.models import import_modules, options_for
    from spatiagraph.data.cohort import Cohort
    from spatiagraph.models import model_class
    from spatiagraph.training.health import progress_of

    import_modules(modules)
    family = model_class(model)
    given = options_for(
        family,
        channels=channels,
        num_genes=1000 if genes is None else genes,
        window_um=window_um,
        num_neighbors=neighbors,
        niche_size=niche_size,
        preset=None if preset is None else preset.value,
        niche_um=niche_um,
        gene_sets=None if gene_sets is None else str(gene_sets),
        orthologs=None if orthologs is None else str(orthologs),
        labels=classify or None,
        seed=seed,
    )
    check_accelerator(accelerator)
    for path, what in ((gene_sets, "a GMT file"), (orthologs, "a table of orthologues")):
        if path is not None:
            check_file(path, what)
    sections: Any
    if stored:
        sections = Cohort(slides[0])
        say(repr(sections))
    else:
        sections = slide_options.read_all(slides, molecules=family.reads_molecules)
        for slide in sections:
            say(repr(slide))
    built = family.from_options(sections, **given)
    try:
        run = training.Run(
            max_epochs=epochs,
            max_steps=steps,
            patience=patience,
            lr=lr,
            accelerator=accelerator,
            seed=seed,
            out=out,
        )
        result = training.fit(
            built,
            sections,
            validation=validation or None,
            run=run,
        )
    except KeyboardInterrupt:
        say(f"Finished epochs are safe in {out}: the same command goes on from there")
        raise
    say(
        f"{progress_of(result.history)}, {result.cells_per_second:,.0f} cells/s; model in "
        f"{out / 'model'}"
    )
