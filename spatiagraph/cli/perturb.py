"""``spatiagraph perturb``."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from spatiagraph.cli.options import SlideOptions, seed_option, with_slide_options

_KNOWN = ["ligand", "receptor"]


class Take(StrEnum):
    """Ways of taking a gene from a cell."""

    delete = "delete"
    mask = "mask"


class Score(StrEnum):
    """Scores that are compared."""

    logit = "logit"
    probability = "probability"


@with_slide_options
def perturb(
    model: Annotated[str, typer.Argument(help="Folder of a run or model of SpatialFormer.")],
    slide: Annotated[Path, typer.Argument(help="Slide to ask about.")],
    types: Annotated[str, typer.Option(help="Column of obs with the type of each cell.")],
    first: Annotated[str, typer.Option(help="Type of the first cell of each pair.")],
    second: Annotated[str, typer.Option(help="Type of the second; may be the same.")],
    out: Annotated[Path, typer.Option(help="Folder for answers, tables and the picture.")],
    slide_options: SlideOptions,
    num_pairs: Annotated[int, typer.Option(help="Pairs of neighbours, at most.", min=2)] = 100,
    radius_um: Annotated[
        float, typer.Option(help="Neighbours are at most this far apart.", min=0.01)
    ] = 30.0,
    take: Annotated[
        Take, typer.Option(help="Delete genes, so that ranks move, or leave a mask in their place.")
    ] = Take.delete,
    score: Annotated[
        Score, typer.Option(help="Compare log-odds of being neighbours, or their probability.")
    ] = Score.logit,
    screen: Annotated[
        int | None,
        typer.Option(help="Ask pairs of this many genes of each cell alone: faster.", min=1),
    ] = None,
    min_support: Annotated[
        int, typer.Option(help="Pairs of genes need more pairs of cells than this.", min=1)
    ] = 50,
    known: Annotated[
        Path | None,
        typer.Option(help="Table (.csv, .parquet) with columns ligand and receptor, to compare."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, …")] = "auto",
    seed: Annotated[int, seed_option("Same seed, same pairs of cells.")] = 0,
) -> None:
    """Find the pairs of genes that make a model sure that two types of cells are neighbours.

    Takes every pair of genes from pairs of neighbours, one gene from each cell, and does the same
    where the second cell is no neighbour. Writes pairs.csv (genes: mean effect, p, q, and beside
    others), cells.csv, volcano.png, and known.csv with --known. Answers are kept in the folder: an
    interrupted command goes on where it stopped. It is a question to the model: ask first whether
    it finds neighbours at all (docs: neighbours beside what needs no model).
    """
    from spatiagraph.cli.early import check_model

    check_model(model)
    slide_options.check([slide], types=types)
    from spatiagraph._tables import write_csv
    from spatiagraph.cli.console import check_output_folder, print_table, quiet_libraries, say
    from spatiagraph.cli.embed import load_model
    from spatiagraph.data.read.tables import read_table
    from spatiagraph.evaluate import known_gene_pairs
    from spatiagraph.inference import TypedNeighbors, study_gene_pairs
    from spatiagraph.models.spatialformer import SpatialFormer
    from spatiagraph.plot import volcano
    from spatiagraph.training.devices import as_device

    quiet_libraries()
    check_output_folder(out)
    as_device(device)
    loaded = load_model(model)
    if not isinstance(loaded, SpatialFormer):
        raise ValueError(f"Expected a model of pairs of cells, spatialformer, got {loaded.name}")
    pairs_known = None if known is None else read_table(known, _KNOWN, needed=_KNOWN, text=_KNOWN)
    section = slide_options.read(slide, molecules=False)
    say(repr(section))
    study = study_gene_pairs(
        loaded,
        section,
        TypedNeighbors(types, first, second, num_pairs, radius_um, seed),
        kind=take.value,
        score=score.value,
        screen=screen,
        min_support=min_support,
        out=out,
        device=device,
        progress=True,
    )
    write_csv(study.cells, out / "cells.csv")
    write_csv(study.table, out / "pairs.csv")
    cells, sure = study.cells, study.significant()
    say(
        f"{len(cells)} pairs of {first} and {second}: mean log-odds of being neighbours "
        f"{cells['log_odds'].mean():.2f}, with others in their place "
        f"{cells['log_odds_other'].mean():.2f}"
    )
    if len(study.table):
        volcano(study.table, save=out / "volcano.png")
        shown = study.table.head(10)
        names = shown["gene_a"] + " – " + shown["gene_b"]
        columns = ["n", "mean", "interaction", "q", "mean_others", "q_others"]
        print_table(shown[columns].set_axis(names), "\nthe surest pairs of genes")
    say(f"{len(sure)} of {len(study.table):,} pairs of genes: {out / 'pairs.csv'}")
    if pairs_known is not None:
        overlap = known_gene_pairs(study.table, pairs_known)
        write_csv(overlap.table, out / "known.csv")
        say(
            f"{overlap.num_both} of {overlap.num_found} found pairs are known, of "
            f"{overlap.num_known} known among {overlap.num_tested:,} tested (p {overlap.p:.3g})"
        )
