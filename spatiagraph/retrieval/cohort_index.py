"""``index_cohort``: an index of the cells of a cohort in bounded memory, whole or by shards."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np

from spatiagraph._files import full_disk_named, replaced_file
from spatiagraph._json import Schema
from spatiagraph._typed import typed
from spatiagraph.data.cohort import Cohort
from spatiagraph.data.cohort.lock import only_writer
from spatiagraph.data.cohort.shards import Shard, as_shard, is_done, read_states, write_state
from spatiagraph.data.cohort.work import (
    remove_work,
    shard_folder,
    shards_begun,
    whole_work,
    work_settings,
)
from spatiagraph.retrieval import backend
from spatiagraph.retrieval.index import NicheIndex
from spatiagraph.retrieval.slides import SlideItems
from spatiagraph.retrieval.stored import concatenate_cohort
from spatiagraph.retrieval.vectors import Metric, blocks, check_vectors, prepare

_ITEMS = 2**20  # of a part, where one process makes all of them
_TRAINED = "trained.faiss"


class IndexSettings(Schema):
    """Settings of an index of a cohort: equal where parts can stand beside each other.

    Attributes:
        cohort: Its folder.
        folders: Folder of each slide.
        key: Slot of the embedding in ``obsm``.
        model: Hash of the weights that made it.
        num_items: Cells with an embedding.
        metric: How they are compared.
        seed: Seed of the inverted lists.
        min_recall: Share of the true ten nearest that searches are to find.
    """

    cohort: str
    folders: list[str]
    key: str
    model: str | None
    num_items: int
    metric: Literal["cosine", "l2"]
    seed: int
    min_recall: float


@typed
def index_cohort(
    cohort: Cohort,
    key: str,
    out: str | os.PathLike[str],
    *,
    shard: str | Sequence[int] | None = None,
    metric: Metric = "cosine",
    seed: int = 0,
    min_recall: float = 0.95,
) -> NicheIndex | None:
    """Index the cells of a cohort into a folder, a block of embeddings in memory at a time.

    Inverted lists are written to the disk and mapped into memory when the index is searched: 10⁷
    items take no more than their table does. Searches find what those of an index of inverted lists
    in memory find. A call that was interrupted goes on after the last part.

    Args:
        cohort: A cohort that was embedded.
        key: Slot of the embedding in ``obsm``.
        out: Folder of the index, for :meth:`NicheIndex.load`.
        shard: Part of the cells to index, such as ``"0/3"``: other processes index the others, and
            :func:`merge_index` joins them.
        metric: As of :meth:`NicheIndex.build`.
        seed: Likewise.
        min_recall: Likewise.

    Returns:
        The index, or ``None`` for a shard.

    Raises:
        ValueError: A slide was not embedded, embeddings are of different models or not finite, or
            shards of other settings are done.
        BusyError: Another process indexes the same shard, or one of other settings.
        DiskFullError: The disk takes no more; the same call goes on once there is space.
    """
    if metric not in ("cosine", "l2"):
        raise ValueError(f"Expected 'metric' cosine or l2, got {metric!r}")
    out, items = Path(out), concatenate_cohort(cohort, key)
    settings = _settings(cohort, key, items, metric, seed, min_recall)
    embeddings = items.embeddings
    del items  # the table of all cells, which is not needed until the end
    total, place = settings.num_items, shard_folder(out)
    number = -(-total // _ITEMS)
    whole = [Shard(part, number) for part in range(number)]
    parts = whole if shard is None else [as_shard(shard)]
    with (
        full_disk_named(place),
        shards_begun(place, settings, "embeddings or settings", parts) as folder,
    ):
        with only_writer(folder / _TRAINED, wait=True):  # by the first process, for all
            if not (folder / _TRAINED).is_file():
                _write(_trained(embeddings, settings), folder / _TRAINED)
        for part in parts:
            if not is_done(folder, part):
                _add(embeddings, part, folder, settings)
                write_state(folder, part, total)
    return merge_index(out) if shard is None else None


@typed
def merge_index(out: str | os.PathLike[str]) -> NicheIndex:
    """Merge the shards of :func:`index_cohort`.

    Args:
        out: Folder of the index.

    Raises:
        FileNotFoundError: No shard has been written.
        ValueError: Shards are missing, overlap or are of different settings, or the cohort has
            changed since.
        BusyError: Another process writes the index.
    """
    out = Path(out)
    place = shard_folder(out)
    with only_writer(place), full_disk_named(out):
        folder = whole_work(place)
        settings = work_settings(folder, IndexSettings)
        if settings is None:
            raise ValueError(
                f"Expected the settings of the shards in {str(folder)!r}, found none that can be "
                "read: delete it and index again"
            )
        cohort = Cohort(settings.cohort)
        items = concatenate_cohort(cohort, settings.key)
        now = _settings(
            cohort, settings.key, items, settings.metric, settings.seed, settings.min_recall
        )
        if now != settings:
            raise ValueError(
                f"Expected the cohort {settings.cohort!r} as the shards of {str(out)!r} read it, "
                f"found it changed: delete {str(folder)!r} and index it again"
            )
        done = [Shard(state.shard, state.num_shards) for state in read_states(folder)]
        NicheIndex.measured(
            backend.merged_lists(
                faiss.read_index(str(folder / _TRAINED)),
                [folder / f"{part.name}.faiss" for part in done],
                folder / backend.LISTS,
            ),
            items.obs,
            kind="ivf",
            metric=settings.metric,
            seed=settings.seed,
            min_recall=settings.min_recall,
            model=settings.model,
            key=settings.key,
        ).save(out)
        remove_work(folder)
    del items  # the index has a table of its own
    return NicheIndex.load(out)


def _settings(
    cohort: Cohort, key: str, items: SlideItems, metric: Metric, seed: int, min_recall: float
) -> IndexSettings:
    return IndexSettings(
        cohort=str(cohort.path.resolve()),
        folders=[entry.folder for entry in cohort.entries],
        key=key,
        model=items.model,
        num_items=len(items.obs),
        metric=metric,
        seed=seed,
        min_recall=min_recall,
    )


def _trained(embeddings: Any, settings: IndexSettings) -> Any:
    """Inverted lists without items, the same in every process."""
    num, channels = check_vectors(embeddings, settings.metric, settings.key)
    index = backend.new_index("ivf", channels, settings.metric, num, settings.seed)
    with backend.single_thread(True):
        rows = backend.train_rows(index, num, settings.seed)
        index.train(prepare(embeddings[rows], settings.metric))
    return index


def _add(embeddings: Any, part: Shard, folder: Path, settings: IndexSettings) -> None:
    """Write an index of some of the items."""
    index, own = faiss.read_index(str(folder / _TRAINED)), part.items(settings.num_items)
    done = own.start
    for block in blocks(embeddings, settings.metric, own):
        index.add_with_ids(block, np.arange(done, done + len(block)))
        done += len(block)
    _write(index, folder / f"{part.name}.faiss")


def _write(index: Any, path: Path) -> None:
    with replaced_file(path) as new:
        faiss.write_index(index, str(new))
