"""``spatiagraph embed``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spatiagraph.cli.options import SlideOptions, with_slide_options

if TYPE_CHECKING:
    from spatiagraph.models.base import SlideModel


@with_slide_options
def embed(
    model: Annotated[str, typer.Argument(help="Folder of a run or model, or a Hub id.")],
    slide: Annotated[
        Path,
        typer.Argument(
            help="Slide to embed, or a cohort.zarr of slides; or an image alone, with --pitch-um."
        ),
    ],
    slide_options: SlideOptions,
    out: Annotated[
        Path | None,
        typer.Option(help="The .h5ad file to write; a cohort keeps its embeddings itself."),
    ] = None,
    tile_size: Annotated[
        int | None,
        typer.Option(help="Cells at a time: changes memory, not the result; 8192.", min=1),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="cohort: part of its tiles, 0/3 for the first of three; then `merge`."),
    ] = None,
    before_training: Annotated[
        bool,
        typer.Option(
            "--before-training",
            help="Embed with the model of a run as it was before training: where that does better.",
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
) -> None:
    """Write embeddings of every cell, its niche and its region to an .h5ad file.

    They are in `obsm["X_context"]`, `obsm["X_context_niche"]` and `obsm["X_context_tissue"]`; with
    `spatia` in place of `context` if that is the model. A section that was only photographed is a
    slide with --image and no counts, or its image alone, on whose tissue spots are laid.

    Embeddings of --before-training are called `X_start_context`, `X_start_context_niche`, … and
    stand beside those of the trained model in a file that has these. `search`, `report` and
    `domains` take those that were made last; to search with a slide of its own, give `search`
    --model run/start.
    """
    from spatiagraph.cli.early import check_model, check_start
    from spatiagraph.data.cohort.layout import is_cohort
    from spatiagraph.data.places import IMAGES

    check_start(model) if before_training else check_model(model)
    if is_cohort(slide):
        if out is not None:
            raise ValueError("Expected no --out with a cohort, which keeps its embeddings itself")
        slide_options.check_unused()
        embed_cohort(model, slide, tile_size, shard, device, before_training)
        return
    if shard is not None:
        raise ValueError(f"Expected a cohort with --shard {shard}, got a slide: leave it out")
    if out is None:
        raise ValueError("Expected --out, the .h5ad file to write, got none")
    slide_options.check([slide])
    from spatiagraph import inference
    from spatiagraph.cli.console import check_output_file, say
    from spatiagraph.data.writing import write
    from spatiagraph.training.devices import as_device

    check_output_file(out, ".h5ad")
    as_device(device)
    loaded, name = load_named(model, before_training)
    if slide.suffix.lower() in IMAGES:
        section = slide_options.photographed(slide, loaded.panel)
    else:
        section = slide_options.read(slide, molecules=False)
    say(repr(section))
    coverage = loaded.panel.align(section).coverage
    found = f"{coverage:.0%} of the model's genes measured"
    if not section.is_counted:
        found = "by the image alone"
    adata = inference.embed(loaded, section, tile_size=tile_size, name=name, device=device)
    write(section, out)
    say(f"{adata.n_obs:,} cells, {found}; written to {out}")


def embed_cohort(
    model: str,
    path: Path,
    tile_size: int | None,
    shard: str | None,
    device: str,
    before_training: bool = False,
) -> None:
    """Embed all slides of a cohort, or a part of their tiles."""
    from spatiagraph import inference
    from spatiagraph.cli.console import say
    from spatiagraph.data.cohort import Cohort
    from spatiagraph.training.devices import as_device

    as_device(device)
    cohort, (loaded, name) = Cohort(path), load_named(model, before_training)
    inference.embed(loaded, cohort, tile_size=tile_size, shard=shard, name=name, device=device)
    if shard is not None:
        say(f"shard {shard} is done; once all are, spatiagraph merge {path}")
        return
    say(f"{cohort.num_cells:,} cells of {len(cohort)} slides; written into {path}")


def load_named(run: str, before_training: bool) -> "tuple[SlideModel, str]":
    """The model to embed with, and the name of its slots.

    Args:
        run: As of :func:`load_model`.
        before_training: Take the model of a run as it was before its first step.
    """
    from spatiagraph.keys import start_name
    from spatiagraph.training.start import load_start

    if not before_training:
        loaded = load_model(run)
        return loaded, loaded.name
    loaded = load_start(run)
    return loaded, start_name(loaded.name)


def load_model(folder_or_hub_id: str | Path) -> "SlideModel":
    """The model of a run's folder, of its own folder, or of the Hub."""
    from spatiagraph.models.base import SlideModel

    inside = Path(folder_or_hub_id) / "model"
    return SlideModel.from_pretrained(inside if inside.is_dir() else folder_or_hub_id)
