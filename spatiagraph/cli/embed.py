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
    slide: Annotated[Path, typer.Argument(help="Slide to embed.")],
    out: Annotated[Path, typer.Option(help="The .h5ad file to write.")],
    slide_options: SlideOptions,
    tile_size: Annotated[
        int, typer.Option(help="Cells at a time: changes memory, not the result.", min=1)
    ] = 8192,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
) -> None:
    """Write embeddings of every cell, its niche and its region to an .h5ad file.

    They are in `obsm["X_context"]`, `obsm["X_context_niche"]` and `obsm["X_context_tissue"]`; with
    `spatia` in place of `context` if that is the model.
    """
    from spatiagraph.cli.early import check_model

    check_model(model)
    slide_options.check([slide])
    from spatiagraph import inference
    from spatiagraph.cli.console import check_output_file, say
    from spatiagraph.data.writing import write
    from spatiagraph.training.devices import as_device

    check_output_file(out, ".h5ad")
    as_device(device)
    loaded = load_model(model)
    section = slide_options.read(slide, molecules=False)
    say(repr(section))
    coverage = loaded.panel.align(section).coverage
    adata = inference.embed(loaded, section, tile_size=tile_size, device=device)
    write(section, out)
    say(f"{adata.n_obs:,} cells, {coverage:.0%} of the model's genes measured; written to {out}")


def load_model(folder_or_hub_id: str | Path) -> "SlideModel":
    """The model of a run's folder, of its own folder, or of the Hub."""
    from spatiagraph.models.base import SlideModel

    inside = Path(folder_or_hub_id) / "model"
    return SlideModel.from_pretrained(inside if inside.is_dir() else folder_or_hub_id)
