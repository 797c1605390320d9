"""``spatiagraph fit``."""

from pathlib import Path
from typing import Annotated

import typer

from spatiagraph.cli.options import SlideOptions, with_slide_options


@with_slide_options
def fit(
    slides: Annotated[
        list[Path],
        typer.Argument(help="Slides: .h5ad files, .zarr (SpatialData), Visium or Xenium folders."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    slide_options: SlideOptions,
    epochs: Annotated[int, typer.Option(help="Passes over all cells.", min=1)] = 30,
    channels: Annotated[int, typer.Option(help="Size of an embedding.", min=4)] = 32,
    genes: Annotated[int, typer.Option(help="Most variable genes to read.", min=2)] = 1000,
    neighbors: Annotated[int, typer.Option(help="Neighbours of a cell in the graph.", min=1)] = 8,
    niche_size: Annotated[
        int, typer.Option(help="A niche is a cell and this many nearest others.", min=1)
    ] = 15,
    window_um: Annotated[
        float | None,
        typer.Option(help="Side of the crop around a cell; 13.6, or the pitch of spots."),
    ] = None,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu, mps, …")] = "auto",
    seed: Annotated[int, typer.Option(help="Same seed, same weights.")] = 0,
) -> None:
    """Train a model on slides.

    The folder of the run holds the model, a table of losses and what was run on what. After an
    interruption the same command goes on where it stopped, with the same result.
    """
    from spatiagraph.cli.console import quiet_libraries, say

    quiet_libraries()
    from spatiagraph import training
    from spatiagraph.models import ContextModel

    sections = slide_options.read_all(slides)
    for slide in sections:
        say(repr(slide))
    model = ContextModel.for_slides(
        sections,
        channels=channels,
        num_genes=genes,
        num_neighbors=neighbors,
        niche_size=niche_size,
        window_um=window_um,
        seed=seed,
    )
    try:
        result = training.fit(
            model, sections, max_epochs=epochs, lr=lr, accelerator=accelerator, seed=seed, out=out
        )
    except KeyboardInterrupt:
        say(f"Finished epochs are safe in {out}: the same command goes on from there")
        raise
    loss = result.history["loss"]
    say(
        f"loss {loss.iloc[0]:.4g} → {loss.iloc[-1]:.4g} in {len(loss)} epochs, "
        f"{result.cells_per_second:,.0f} cells/s; model in {out / 'model'}"
    )
