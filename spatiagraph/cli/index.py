"""``spatiagraph index``."""

from pathlib import Path
from typing import Annotated

import typer


def index(
    cohort: Annotated[Path, typer.Argument(help="A cohort.zarr that `embed` has embedded.")],
    out: Annotated[Path, typer.Option(help="Folder of the index, for NicheIndex.load.")],
    level: Annotated[
        str | None,
        typer.Option(help="Index cells, or groups of a level such as niche, which is the default."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="Part of the cells, 0/3 for the first third; then `merge` of --out."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the lists.", min=0, max=2**31 - 1)] = 0,
) -> None:
    """Index the cells of a cohort on the disk, in bounded memory however many there are.

    The index is searched where it lies, and is for Python: NicheIndex.load(OUT). An interrupted
    command goes on where it stopped.
    """
    from spatiagraph._files import check_output_folder
    from spatiagraph.cli.console import say
    from spatiagraph.data.cohort import Cohort
    from spatiagraph.data.cohort.embedded import embedding_notes
    from spatiagraph.data.cohort.shards import as_shard
    from spatiagraph.inference.embedded import choose_level
    from spatiagraph.keys import embedding_key
    from spatiagraph.retrieval import index_cohort

    if shard is not None:
        as_shard(shard)
    store = Cohort(cohort)
    check_output_folder(out.resolve().parent)
    notes = embedding_notes(store.part())
    key = embedding_key(notes.name, choose_level(notes.levels, level))
    made = index_cohort(store, key, out, shard=shard, seed=seed)
    if made is None:
        say(f"shard {shard} is done; once all are, spatiagraph merge {out}")
    else:
        say(f"{made!r} written to {out}")
