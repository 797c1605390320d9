"""Embeddings of a cohort, tile by tile into the store."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from tqdm.auto import tqdm

from spatiagraph.data.cohort import Cohort
from spatiagraph.data.cohort.lock import only_writer
from spatiagraph.data.cohort.results import ResultSettings, TileResults
from spatiagraph.data.cohort.shards import Shard, as_shard, write_state
from spatiagraph.data.convert import TissueData
from spatiagraph.inference.levels import embed_tile
from spatiagraph.models.base import SlideModel
from spatiagraph.nn.weights import weights_hash
from spatiagraph.training.cohorts import part_for
from spatiagraph.training.encoding import each_tile
from spatiagraph.training.record import run_record


def embed_cohort(
    model: SlideModel,
    cohort: Cohort,
    *,
    shard: str | Sequence[int] | None = None,
    name: str | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Cohort:
    """Embed all slides of a cohort; see :func:`~spatiagraph.embed`.

    Tiles are written beside the cohort as they are embedded and moved in when a slide is whole. A
    call that was interrupted or killed goes on after the last tile; slides that have the
    embeddings of these weights are left as they are.

    Args:
        model: A trained model.
        cohort: A cohort of its recipe.
        shard: Part of the tiles to embed, such as ``"0/3"``: other processes embed the others, and
            :func:`~spatiagraph.data.cohort.merge_cohort` moves them in.
        name: Name of the slots, in place of ``model.name``.
        device: Where the model runs.
        progress: Show a progress bar.

    Returns:
        The cohort, opened anew: ``cohort["s0"].adata.obsm`` holds what ``embed`` writes.

    Raises:
        ValueError: If the cohort does not fit the model.
        BusyError: Another process is writing to the cohort, or embeds the same shard, or a shard
            with other weights.
        DiskFullError: The disk takes no more; the same call goes on once there is space.
    """
    part_for(model, cohort)
    place = cohort.path.resolve()
    if shard is not None:
        settings = result_settings(model, cohort, name)
        _embed_shard(model, TileResults(cohort, settings), as_shard(shard), device, progress)
        return cohort
    with only_writer(place):
        cohort = Cohort(cohort.path)  # others may have written since
        results = TileResults(cohort, result_settings(model, cohort, name))
        results.begin()
        todo = [at for at in range(len(cohort)) if not results.is_finished(at)]
        total = sum(cohort.entries[at].num_tiles for at in todo)
        with tqdm(total=total, desc="embed", unit="tile", disable=not progress) as bar:
            for at in todo:
                for _ in embed_tiles(
                    model, results, at, range(cohort.entries[at].num_tiles), device=device
                ):
                    bar.update()
                results.finish(at)
        results.remove()
    return Cohort(cohort.path)


def result_settings(model: SlideModel, cohort: Cohort, name: str | None = None) -> ResultSettings:
    """Settings of the embeddings of a model.

    Args:
        model: The model.
        cohort: The cohort.
        name: Name of the slots, in place of ``model.name``.
    """
    weights = weights_hash(model)
    return ResultSettings(
        name=model.name if name is None else name,
        levels=list(model.recipe.level_names),
        records=[
            run_record(model, cohort.part([at]), weights_hash=weights) for at in range(len(cohort))
        ],
        folders=[entry.folder for entry in cohort.entries],
    )


def _embed_shard(
    model: SlideModel,
    results: TileResults,
    shard: Shard,
    device: str | torch.device,
    progress: bool,
) -> None:
    """Embed the tiles of a shard, and note that it is done."""
    cohort = results.cohort
    every = [(at, n) for at, entry in enumerate(cohort.entries) for n in range(entry.num_tiles)]
    own = [every[item] for item in shard.items(len(every))]
    with ExitStack() as held:
        with only_writer(cohort.path.resolve(), wait=True):
            results.begin()
            held.enter_context(only_writer(results.folder / shard.name))  # before others may begin
        bar = held.enter_context(
            tqdm(total=len(own), desc=f"embed {shard}", unit="tile", disable=not progress)
        )
        for at, group in itertools.groupby(own, key=lambda item: item[0]):
            numbers = [number for _, number in group]
            for _ in embed_tiles(model, results, at, numbers, device=device):
                bar.update()
        write_state(results.folder, shard, len(every))


def embed_tiles(
    model: SlideModel,
    results: TileResults,
    slide: int,
    numbers: Sequence[int],
    *,
    device: str | torch.device = "auto",
) -> Iterator[int]:
    """Embed some tiles of a slide, those that are there already left as they are.

    Args:
        model: The model.
        results: Where embeddings are kept.
        slide: Number of the slide.
        numbers: Numbers of the tiles.
        device: Where the model runs.

    Yields:
        The number of each tile, once it is written.
    """
    part = results.cohort.part([slide])
    missing = [number for number in numbers if not results.has(slide, number)]
    yield from (number for number in numbers if number not in set(missing))
    tiles = part.tiles(part.tile_size, model.num_hops)

    def embedded(tile: TissueData, device: torch.device) -> dict[str, torch.Tensor]:
        return embed_tile(model, tile, device)

    each = each_tile(model, (tiles[number] for number in missing), embedded, device=device)
    for number, (rows, values) in zip(missing, each, strict=True):
        results.write(slide, number, rows, values)
        yield number
