"""``fit``: train a model on slides."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from torch import nn

from spatiagraph.data.convert import TissueData
from spatiagraph.data.loader import NicheBatches
from spatiagraph.data.slide import Slide
from spatiagraph.models.base import HierarchicalModel, SlideModel
from spatiagraph.tasks.base import Task
from spatiagraph.tasks.catalog import pretraining
from spatiagraph.training.encoding import encode_cells
from spatiagraph.training.folder import check_folder
from spatiagraph.training.record import run_record, task_record
from spatiagraph.training.trainer import FitResult, check_numbers, train


def fit(
    model: SlideModel,
    slides: Sequence[Slide],
    *,
    task: Task | None = None,
    max_epochs: int = 30,
    lr: float = 1e-3,
    tile_size: int | None = None,
    batches: NicheBatches | None = None,
    cache_cells: bool = False,
    average: float | None = None,
    accelerator: str = "auto",
    devices: int | str = "auto",
    strategy: str = "auto",
    precision: Any = "32-true",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
) -> FitResult:
    """Train a model on slides; the model is changed in place.

    With ``out``, the run keeps ``history.csv``, a checkpoint after every epoch and, at the end, the
    model under ``out/model``. Called again after an interruption it goes on where it stopped and
    ends with the weights of an uninterrupted run; called with other arguments it refuses.

    Args:
        model: The model.
        slides: The slides; their ids must differ.
        task: Objective; that which pre-trains the model when not given.
        max_epochs: Passes over all cells.
        lr: Peak learning rate.
        tile_size: Core cells of a mini-batch, at most; ``model.tile_size`` when not given.
        batches: How slides become mini-batches, such as
            :class:`~spatiagraph.data.loader.NicheBatches`; ``model.batches`` when not given: tiles
            with all the context of their cells.
        cache_cells: Encode every cell once, leave the cell encoder as it is and train what comes
            after it: the second of two stages, on whole regions of any size.
        average: Decay of an exponential moving average of the weights, which the model ends with;
            ``None`` for none.
        accelerator: ``"auto"``, ``"cpu"``, ``"gpu"``, … as in Lightning.
        devices: Devices to use, as in Lightning; every one gets tiles of its own.
        strategy: ``"ddp"``, ``"fsdp"``, … as in Lightning; on several devices ``"auto"`` is DDP
            that allows for parts of the model which a batch has nothing for.
        precision: ``"32-true"``, ``"bf16-mixed"``, … as in Lightning.
        seed: Seed of the order of tiles, of masks and of dropout.
        out: Folder of the run; nothing is written without it.
        resume: Go on from the folder's last checkpoint; ``False`` refuses a folder with a run.
        progress: Show a progress bar.
        callbacks: More Lightning callbacks.

    Raises:
        ValueError: If slides share an id, the folder holds another run, the task cannot do with
            cached cells, nothing was trained, or the loss stops being finite.
        KeyboardInterrupt: On Ctrl-C, once the last finished epoch is safe.
    """
    check_numbers(max_epochs=max_epochs, lr=lr)
    ids = [slide.slide_id for slide in slides]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    if repeated or not ids:
        raise ValueError(f"Expected slides with different ids, got {repeated or 'no slide'}")
    task = pretraining(model, seed=seed) if task is None else task
    if cache_cells and not task.takes_cached_cells:
        raise ValueError(
            f"Expected a task that can do with cached cells, {type(task).__name__} hides parts of "
            "the cells themselves: train with cache_cells=False"
        )
    tile_size = model.tile_size if tile_size is None else tile_size
    record = run_record(
        model,
        slides,
        task=task_record(task),
        max_epochs=max_epochs,
        lr=lr,
        tile_size=tile_size,
        batches=None if batches is None else repr(batches),
        cache_cells=cache_cells,
        average=average,
        precision=str(precision),
        seed=seed,
    )
    if out is not None:
        check_folder(Path(out), record, resume)  # before hours of preparing slides
    prepared = [model.recipe(slide) for slide in slides]
    if cache_cells:
        if not isinstance(model, HierarchicalModel):
            raise ValueError(
                f"Expected a model with a cell encoder, {type(model).__name__} has none"
            )
        device = "cpu" if accelerator == "cpu" else "auto"
        prepared = [_with_cached_cells(model, data, device, progress) for data in prepared]
    with _frozen(getattr(model, "cell_encoder", None) if cache_cells else None):
        return train(
            task,
            model.batches(prepared, tile_size, shuffle=True, seed=seed)
            if batches is None
            else batches(prepared, model.recipe, tile_size, seed=seed),
            record=record,
            max_epochs=max_epochs,
            lr=lr,
            average=average,
            accelerator=accelerator,
            devices=devices,
            strategy=strategy,
            precision=precision,
            seed=seed,
            out=out,
            resume=resume,
            progress=progress,
            callbacks=callbacks,
        )


def _with_cached_cells(
    model: HierarchicalModel, data: TissueData, device: str, progress: bool
) -> TissueData:
    """The slide with the embeddings of its cells in place of their images."""
    data.put("cell", z=encode_cells(model, data, device=device, progress=progress))
    data.drop("image", "window_um")
    return data


@contextmanager
def _frozen(module: nn.Module | None) -> Iterator[None]:
    """Train everything but ``module``."""
    trained = [p for p in ([] if module is None else module.parameters()) if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
