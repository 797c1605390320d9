"""``spatiagraph merge``."""

from pathlib import Path
from typing import Annotated

import typer


def merge(
    cohort: Annotated[Path, typer.Argument(help="The cohort.zarr that shards were of.")],
) -> None:
    """Join what `prepare --shard` or `embed --shard` have written, once all shards are there.

    Shards that are missing or overlap are named, and nothing is changed.
    """
    from spatiagraph.cli.console import say
    from spatiagraph.data.cohort import merge_cohort

    say(f"{merge_cohort(cohort)!r} merged in {cohort}")
