"""``fit``: train a model on slides."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spatiagraph.data.cohort import Cohort, CohortPart
from spatiagraph.data.convert import TissueData
from spatiagraph.data.loader import NicheBatches, Prepared, whole_slides
from spatiagraph.data.slide import Slide
from spatiagraph.models.base import HierarchicalModel, SlideModel
from spatiagraph.tasks.base import Task
from spatiagraph.tasks.catalog import pretraining
from spatiagraph.training.cohorts import check_whole, part_for
from spatiagraph.training.devices import as_device
from spatiagraph.training.encoding import encode_cells
from spatiagraph.training.folder import check_folder
from spatiagraph.training.movement import Movement
from spatiagraph.training.record import run_record, task_record, watched_record
from spatiagraph.training.run import Run, run_of
from spatiagraph.training.trainer import FitResult, check_patience, train
from spatiagraph.training.validation import (
    as_validation,
    check_donors,
    start_without,
)

TILES = 8
"""Tiles that all slides together give at least, unless they are very small."""


def fit(
    model: SlideModel,
    slides: Slide | Sequence[Slide] | CohortPart,
    *,
    task: Task | None = None,
    validation: Slide | Sequence[Slide] | CohortPart | float | None = None,
    tile_size: int | None = None,
    batches: NicheBatches | None = None,
    cache_cells: bool = False,
    run: Run | None = None,
    **options: Any,
) -> FitResult:
    """Train a model on slides; the model is changed in place.

    A run with a folder (``out="run"``) also keeps the model as it was before the first step, for
    :func:`~spatiagraph.training.load_start`: with ``cache_cells`` that of the first stage.

    Args:
        model: The model.
        slides: A slide, or some whose ids differ; or a :class:`~spatiagraph.Cohort` of the model's
            recipe, or a part of one, whose tiles are read one after the other. The result is that
            of its slides in memory.
        task: Objective; that which pre-trains the model when not given.
        validation: Slides, or a share of each slide in blocks of tissue, to score the model on
            before training and after every epoch as ``val_loss``, and never to train on. Cells
            within reach of such a block are not trained on either. The model ends with the weights
            of the lowest loss; see ``patience`` of :class:`Run`. With few cells that costs more
            than it gives: what is held out is not learned from.
        tile_size: Core cells of a mini-batch, at most. When not given, an eighth of all cells, so
            that a small slide gives many steps as well, within ``model.least_tile`` and
            ``model.tile_size``: tiles carry all the context of their cells, whatever their size.
            That of a cohort is its own.
        batches: How slides become mini-batches, such as
            :class:`~spatiagraph.data.loader.NicheBatches`; ``model.batches`` when not given: tiles
            with all the context of their cells.
        cache_cells: Encode every cell once, leave the cell encoder as it is and train what comes
            after it: the second of two stages, on whole regions of any size.
        run: How to train; see :class:`~spatiagraph.training.Run`. Learning rate, weight decay and
            number of steps are those of the model where it says nothing.
        **options: Fields of ``run`` by name, such as ``max_epochs=5, out="run"``.

    Raises:
        ValueError: If slides share an id, the folder holds another run, the task cannot do with
            cached cells, nothing is left to train on, or the loss stops being finite.
        KeyboardInterrupt: On Ctrl-C, once the last finished epoch is safe.
    """
    run = run_of(run, options, taken_by=fit)
    if not isinstance(model, SlideModel):
        raise TypeError(f"Expected 'model' as SlideModel, got {type(model).__name__} {model!r:.60}")
    asked, run = run, run.filled(lr=model.lr, weight_decay=model.weight_decay)
    slides = _checked(model, slides)
    ids = [slide.slide_id for slide in slides] if isinstance(slides, list) else slides.slide_ids
    held_out = as_validation(validation, ids)
    if held_out is not None:
        check_donors(held_out, slides)
    if cache_cells:
        check_whole(slides, "cache_cells=True")
    if batches is not None:
        check_whole(slides, "batches=…")
    check_patience(run, held_out is not None)
    if task is None:
        task = pretraining(model, seed=run.seed, cached_cells=cache_cells)
    if cache_cells and not task.takes_cached_cells:
        raise ValueError(
            f"Expected a task that can do with cached cells, {type(task).__name__} hides parts of "
            "the cells themselves: train with cache_cells=False"
        )
    if tile_size is None:
        tile_size = model.tile_size if batches is not None else default_tile_size(model, slides)
    record = run_record(
        model,
        slides,
        task=task_record(task),
        watched=watched_record(task),
        tile_size=tile_size,
        batches=None if batches is None else repr(batches),
        cache_cells=cache_cells,
        validation=None if held_out is None else held_out.record,
        num_steps=model.num_steps,
        **run.record,
    )
    if run.out is not None:
        later = () if model.start is None else ("weight_decay",)
        # before hours of preparing slides
        check_folder(Path(run.out), record, run.resume, later=later)
    device = as_device("cpu" if run.accelerator == "cpu" else "auto")
    prepared: Prepared = (
        slides
        if isinstance(slides, CohortPart)
        else [model.prepare(slide, device=device, learn=True) for slide in slides]
    )
    checked: Prepared | None = None
    if held_out is not None:
        prepared, checked = held_out.split(model, slides, prepared, run.seed, device)
        start_without(held_out, model, slides, prepared)
        run = asked.filled(lr=model.lr, weight_decay=model.weight_decay)
        record["weight_decay"] = run.weight_decay
    model.start = None  # what is trained is no start
    frozen: Iterable[nn.Parameter] = ()
    if cache_cells:
        if not isinstance(model, HierarchicalModel):
            raise ValueError(
                f"Expected a model with a cell encoder, {type(model).__name__} has none"
            )
        for data in (*whole_slides(prepared, "fit"), *whole_slides(checked or (), "fit")):
            _cache_cells(model, data, run)
        frozen = model.cell_encoder.parameters()
    workers: dict[str, Any] = {"seed": run.seed, "num_workers": run.num_workers}
    with _frozen(frozen):
        return train(
            task,
            model.batches(prepared, tile_size, shuffle=True, **workers)
            if batches is None
            else batches(whole_slides(prepared, "fit"), model.recipe, tile_size, **workers),
            validation=None if checked is None else model.batches(checked, tile_size, **workers),
            record=record,
            movement=Movement(model, next(iter(model.batches(prepared, tile_size)))),
            num_steps=model.num_steps,
            run=run,
        )


def _checked(
    model: SlideModel, slides: Slide | Sequence[Slide] | CohortPart
) -> list[Slide] | CohortPart:
    """Slides whose ids differ, or a cohort that fits the model."""
    if isinstance(slides, Cohort | CohortPart):
        return part_for(model, slides)
    found = [slides] if isinstance(slides, Slide) else list(slides)
    for slide in found:
        if not isinstance(slide, Slide):
            raise TypeError(f"Expected slides, got {type(slide).__name__} {slide!r:.60}")
    ids = [slide.slide_id for slide in found]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    if repeated or not ids:
        raise ValueError(f"Expected slides with different ids, got {repeated or 'no slide'}")
    return found


def default_tile_size(model: SlideModel, slides: Sequence[Slide] | CohortPart) -> int:
    """Core cells of a tile: the slides give many, unless tiles would become very small.

    Args:
        model: Knows the least and the most.
        slides: Training slides; a cohort has tiles already.
    """
    if isinstance(slides, CohortPart):
        return slides.tile_size
    num_cells = sum(slide.num_cells for slide in slides)
    return min(model.tile_size, max(model.least_tile, -(-num_cells // TILES)))


def _cache_cells(model: HierarchicalModel, data: TissueData, run: Run) -> None:
    """Put the embeddings of the cells of a slide in place of their images."""
    device = "cpu" if run.accelerator == "cpu" else "auto"
    whole = copy.copy(data)
    whole.core = torch.ones_like(data.core)
    data.put("cell", z=encode_cells(model, whole, device=device, progress=run.progress))
    data.drop("image", "window_um")


@contextmanager
def _frozen(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Train all but some parameters."""
    trained = [p for p in parameters if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
