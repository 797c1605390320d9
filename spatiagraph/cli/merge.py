"""``spatiagraph merge``."""

from pathlib import Path
from typing import Annotated

import typer


def merge(
    made: Annotated[
        Path,
        typer.Argument(
            help="What shards were to make: a cohort.zarr, the folder of an index, or a table."
        ),
    ],
) -> None:
    """Merge the shards that `prepare`, `embed`, `index` or `evaluate` with --shard have written.

    Shards that are missing or overlap are named, and nothing is changed.
    """
    from spatiagraph.cli.console import say
    from spatiagraph.data.cohort import merge_cohort
    from spatiagraph.inference import merge_scores
    from spatiagraph.retrieval import merge_index

    if made.suffix == ".zarr":
        say(f"{merge_cohort(made)!r} merged in {made}")
    elif made.suffix == ".csv":
        say(f"{len(merge_scores(made)):,} rows merged in {made}")
    else:
        say(f"{merge_index(made)!r} merged in {made}")
