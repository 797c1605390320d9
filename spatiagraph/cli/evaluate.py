"""``spatiagraph evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from spatiagraph.cli.options import SlideOptions, Unlabelled, with_slide_options


@with_slide_options
def evaluate(
    slide: Annotated[Path, typer.Argument(help="Slide with embeddings in obsm, of any method.")],
    slide_options: SlideOptions,
    embedding: Annotated[
        list[str] | None,
        typer.Option(help="Slot of obsm; may be repeated. All that start with X_ by default."),
    ] = None,
    domains: Annotated[str | None, typer.Option(help="Column of obs with known domains.")] = None,
    types: Annotated[str | None, typer.Option(help="Column of obs with known cell types.")] = None,
    unlabelled: Unlabelled = None,
    seeds: Annotated[int, typer.Option(help="Clusterings of each embedding.", min=1)] = 5,
    out: Annotated[
        Path | None, typer.Option(help="Write the tidy table to this .csv, a picture beside it.")
    ] = None,
) -> None:
    """Score embeddings against known domains and cell types, beside plain baselines.

    Domains: k-means and a Gaussian mixture. Types: logistic regression, blocks of tissue held out
    in turn. The baselines are PCA, neighbour-averaged PCA, sequencing depth and position.
    """
    from spatiagraph.cli.console import check_output_file, print_table, say
    from spatiagraph.cli.results import known_labels
    from spatiagraph.data.checks import nearest
    from spatiagraph.evaluate import run_protocols
    from spatiagraph.plot import protocol_bars

    if out is not None:
        check_output_file(out, ".csv")
    section = slide_options.read(slide)
    slots = [str(k) for k in section.adata.obsm if str(k).startswith("X_")]
    for key in embedding or ():
        if key not in section.adata.obsm:
            close = nearest(key, [str(k) for k in section.adata.obsm])
            raise ValueError(f"Expected a slot of obsm for --embedding, got {key!r}. {close}")
    table = run_protocols(
        {key: section.adata.obsm[key] for key in embedding or slots},
        section.counts,
        section.pos,
        domains=known_labels(section, domains, unlabelled or ()),
        types=known_labels(section, types, unlabelled or ()),
        expression=section.expression,
        num_seeds=seeds,
        progress=True,
    )
    for protocol, part in table.groupby("protocol", sort=False):
        wide = part.pivot_table(index="embedding", columns="metric", values="value", sort=False)
        wide["seconds"] = part.groupby("embedding")["seconds"].first()
        print_table(wide, f"\n{protocol}")
    if out is not None:
        table.to_csv(out, index=False)
        picture = out.with_suffix(".png")
        protocol_bars(table, save=picture, highlight=embedding or slots)
        say(f"\nwritten to {out} and {picture}")
