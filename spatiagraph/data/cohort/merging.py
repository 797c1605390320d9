"""``merge_cohort``: what shards have written becomes one, once all of them have."""

import logging
import os

from spatiagraph.data.cohort.cohort import Cohort
from spatiagraph.data.cohort.creating import merge_shards
from spatiagraph.data.cohort.layout import cohort_place
from spatiagraph.data.cohort.lock import only_writer
from spatiagraph.data.cohort.results import begun_results
from spatiagraph.data.cohort.shards import check_complete, read_states

logger = logging.getLogger(__name__)


def merge_cohort(path: str | os.PathLike[str]) -> Cohort:
    """Merge shards: slides that were prepared, or embeddings.

    A call that was interrupted or killed goes on where it stopped. Embeddings of one model are
    joined although those of another are not whole, which a warning names.

    Args:
        path: The cohort that the shards were of.

    Raises:
        FileNotFoundError: There is neither a cohort nor one that was begun.
        ValueError: Shards are missing or overlap, or none has been written.
        BusyError: Another process is writing to the cohort.
    """
    place = cohort_place(path)
    with only_writer(place):
        if not (place.is_dir() and any(place.iterdir())):
            merge_shards(place)
            return Cohort(path)
        cohort = Cohort(path)
        begun = [(r, states) for r in begun_results(cohort) if (states := read_states(r.folder))]
        if not begun:
            raise ValueError(
                f"Expected shards beside {str(path)!r}, found none: run `spatiagraph embed --shard`"
            )
        total = sum(entry.num_tiles for entry in cohort.entries)
        refused: list[ValueError] = []
        for results, states in begun:
            try:
                check_complete(states, results.folder, total)
            except ValueError as err:
                refused.append(err)
                continue
            for at in range(len(cohort)):
                if not results.is_finished(at):
                    results.finish(at)
            results.remove()
        if len(refused) == len(begun):
            raise refused[0]
        for reason in refused:
            logger.warning("not merged: %s", reason)
    return Cohort(path)
