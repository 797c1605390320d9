"""``train``: any task on any batches, with checkpoints, a log and exact resume."""

import logging
import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import (
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
)
from lightning.pytorch.trainer.states import TrainerStatus
from torch.utils.data import DataLoader

from spatiagraph._files import full_disk_named
from spatiagraph.nn.hub import PretrainedModel
from spatiagraph.tasks.base import Task
from spatiagraph.training.averaging import WarmAverage
from spatiagraph.training.checkpoints import LAST, CheckpointFiles, newest_checkpoint
from spatiagraph.training.folder import HISTORY, MODEL, check_folder, claim, release
from spatiagraph.training.module import TaskModule
from spatiagraph.training.movement import Movement
from spatiagraph.training.progress import EpochProgress, History
from spatiagraph.training.resuming import EpochOfOrder
from spatiagraph.training.run import NUM_STEPS, Run, run_of
from spatiagraph.training.start import keep_start
from spatiagraph.training.stopping import BestWeights

logger = logging.getLogger(__name__)

_TALKERS = ("pytorch", "fabric")
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # which Lightning sets along with deterministic algorithms


@dataclass(frozen=True)
class FitResult:
    """Result of a training run.

    Attributes:
        history: One row per epoch: epoch, steps, cells, seconds, lr, ``lr_sum`` (of all steps so
            far), loss and its parts, and where there is validation ``val_loss``, its parts, and
            ``start_val_loss`` of before the first step, or that of the score that the task has
            ``watched``. Of a model of slides also ``moved``, ``gates_moved`` and, for each gate,
            ``gates_moved.NAME``, see :class:`~spatiagraph.training.movement.Movement`.
        record: Arguments, seed, version, panel coverage and content hashes.
        out: Folder of the run, or ``None``.
        cells_per_second: Cells trained on per second, whole epochs.
    """

    history: pd.DataFrame
    record: dict[str, Any]
    out: Path | None
    cells_per_second: float


def train(
    task: Task,
    batches: DataLoader[Any],
    *,
    validation: DataLoader[Any] | None = None,
    record: dict[str, Any] | None = None,
    movement: Movement | None = None,
    num_steps: int = NUM_STEPS,
    run: Run | None = None,
    **options: Any,
) -> FitResult:
    """Train any task on any batches; what :func:`~spatiagraph.training.fit` and others rest on.

    Args:
        task: What to learn; ``task.model`` is changed in place, and saved if it can be.
        batches: What the task learns from: mappings or named tuples of tensors, or objects with
            ``to(device)`` such as PyG's.
        validation: Batches that the task is scored on before the first and after every epoch, in
            evaluation mode and with the same randomness each time; the result is ``val_loss`` and
            its parts. The task ends with the weights of the lowest, or of the best of what it has
            ``watched``.
        record: Describes the run, as plain values: equal for runs that are the same.
        movement: How far the model moved, for the history.
        num_steps: Steps to take where the run says nothing of its length.
        run: How to train; see :class:`~spatiagraph.training.Run`.
        **options: Fields of ``run`` by name.

    Raises:
        ValueError: If an argument is out of range, the folder holds another run or checkpoints none
            of which opens, nothing was trained, or the loss stops being finite. A folder that was
            free before is free again unless an epoch was finished.
        DiskFullError: If the folder takes no more; finished epochs are safe.
        KeyboardInterrupt: On Ctrl-C, once the last finished epoch is safe.
    """
    run = run_of(run, options, taken_by=train).filled()
    check_patience(run, validation is not None)
    record = {} if record is None else record
    folder = None if run.out is None else Path(run.out)
    if folder is not None:
        check_folder(folder, record, run.resume)
    history = History(None if folder is None else folder / HISTORY, movement)
    best = (
        []
        if validation is None
        else [BestWeights(run.patience, run.min_steps or 0, watched=task.watched)]
    )
    assert run.lr is not None  # filled
    assert run.weight_decay is not None
    module = TaskModule(
        task.train(),
        lr=run.lr,
        weight_decay=run.weight_decay,
        seed=run.seed,
        schedule=run.schedule,
    )
    with _torch_settings_kept(), _quiet(run.progress):
        # the average is validated: weights are kept before it makes room again
        callbacks = [history, EpochOfOrder(batches), *best, *_averages(run), *_progress(run)]
        callbacks += _checkpoints(folder)
        trainer = _trainer(run, folder, record, callbacks)
        # a pass takes fewer steps where several processes share it
        step = run.accumulate_grad_batches * trainer.world_size
        trainer.fit_loop.max_epochs = run.epochs(-(-len(batches) // step), num_steps)
        checkpoint = None
        first = trainer.is_global_zero  # the others only look
        if folder is not None:  # all arguments are good
            checkpoint = claim(folder, record) if first else newest_checkpoint(folder, record)
        start = time.perf_counter()
        with _kept_in(folder):
            if folder is not None and first and checkpoint is None:
                keep_start(task.model, folder)  # of a run that goes on, its start is there
            _run(trainer, module, batches, validation, checkpoint)
            if not history.rows:
                raise ValueError("Expected at least one training step, but none was taken")
            if trainer.is_global_zero:
                history.write()  # also where all epochs were done: the table may be damaged
        seconds = time.perf_counter() - start
    for kept in best:
        kept.restore(task)
    task.model.eval()
    if folder is not None and trainer.is_global_zero and isinstance(task.model, PretrainedModel):
        task.model.save_pretrained(folder / MODEL)
    cells = sum(row["cells"] for row in history.rows)
    logger.info("trained on %d cells in %.1f s", cells, seconds)
    spent = sum(row["seconds"] for row in history.rows)
    return FitResult(history.frame, record, folder, cells / max(spent, 1e-9))


def check_patience(run: Run, validated: bool) -> None:
    """Refuse early stopping where nothing says when to stop.

    Args:
        run: How to train.
        validated: Whether there is a validation set.

    Raises:
        ValueError: There is none.
    """
    if run.patience is not None and not validated:
        raise ValueError(
            f"Expected 'validation' with patience={run.patience}: slides, or a share of the tissue"
        )


def _trainer(
    run: Run,
    folder: Path | None,
    record: dict[str, Any],
    callbacks: list[Callback],
) -> Trainer:
    own = [run.callbacks] if isinstance(run.callbacks, Callback) else list(run.callbacks)
    return Trainer(
        max_epochs=-1,
        max_steps=-1 if run.max_steps is None else run.max_steps,
        accelerator=run.accelerator,
        devices=run.devices if isinstance(run.devices, int | str) else list(run.devices),
        strategy=_strategy(run),
        use_distributed_sampler=False,  # ours know their process
        precision=run.precision,
        accumulate_grad_batches=run.accumulate_grad_batches,
        default_root_dir=folder,
        gradient_clip_val=1.0,
        logger=_loggers(run, folder),
        plugins=[] if folder is None else [CheckpointFiles(record)],
        callbacks=[*callbacks, *own],
        enable_checkpointing=folder is not None
        or any(isinstance(callback, Checkpoint) for callback in own),
        enable_progress_bar=run.progress,
        enable_model_summary=False,
        num_sanity_val_steps=-1,  # all of the validation set: what the start is worth
        inference_mode=False,  # crops that validation reads are kept for training
        deterministic="warn",
        log_every_n_steps=1,
    )


@contextmanager
def _torch_settings_kept() -> Iterator[None]:
    """Leave the choice of algorithms as it was: Lightning switches it for the whole process."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    workspace = os.environ.get(_WORKSPACE)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
        os.environ.pop(_WORKSPACE, None)
        if workspace is not None:
            os.environ[_WORKSPACE] = workspace


@contextmanager
def _kept_in(folder: Path | None) -> Iterator[None]:
    """Name the folder if it takes no more, and free it if the run ended in its first epoch."""
    if folder is None:
        yield
        return
    try:
        with full_disk_named(folder):
            yield
    except BaseException:  # also on Ctrl-C or SIGTERM: nothing is in the folder to go on from
        release(folder)
        raise


@contextmanager
def _quiet(progress: bool) -> Iterator[None]:
    """Keep what Lightning has to say of devices and limits to itself, unless it is wanted."""
    talkers = [] if progress else [logging.getLogger(f"lightning.{x}") for x in _TALKERS]
    levels = [talker.level for talker in talkers]
    for talker, level in zip(talkers, levels, strict=True):
        talker.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)


def _strategy(run: Run) -> Any:
    divides = isinstance(
        run.strategy, FSDPStrategy | ModelParallelStrategy | DeepSpeedStrategy
    ) or str(run.strategy).startswith(("fsdp", "deepspeed"))
    if divides:
        # scores, best weights, averages and what is saved are of weights that are whole
        raise ValueError(
            "Expected a strategy that leaves the weights whole, such as 'ddp', got "
            f"{run.strategy!r}: training.shard_encoder divides those of an image encoder in a "
            "loop of one's own"
        )
    if run.strategy != "auto":
        return run.strategy
    gpus = torch.cuda.device_count() if run.accelerator in ("auto", "gpu", "cuda") else 1
    several = gpus > 1
    if isinstance(run.devices, int):
        several = run.devices > 1
    elif not isinstance(run.devices, str):
        several = len(run.devices) > 1
    return "ddp_find_unused_parameters_true" if several else "auto"


def _loggers(run: Run, folder: Path | None) -> Any:
    if run.logger is not None:
        return run.logger if run.logger is not True or folder is not None else False
    if folder is None or find_spec("tensorboard") is None:
        return False
    return TensorBoardLogger(str(folder), name="tensorboard", version="")


def _averages(run: Run) -> list[Callback]:
    return [] if run.average is None else [WarmAverage(run.average)]


def _progress(run: Run) -> list[Callback]:
    return [EpochProgress()] if run.progress else []


def _checkpoints(folder: Path | None) -> list[Callback]:
    if folder is None:
        return []
    return [
        ModelCheckpoint(
            dirpath=folder / LAST.parent,
            filename="last",
            save_top_k=1,
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
    ]


def _run(
    trainer: Trainer,
    module: TaskModule,
    batches: DataLoader[Any],
    validation: DataLoader[Any] | None,
    checkpoint: Path | None,
) -> None:
    """``trainer.fit`` that ends in ``KeyboardInterrupt``, not in ``sys.exit``, on Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings():
            # tiles are cut in memory: workers would only copy the slides
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists.*")
            warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")
            # a run goes on where its folder was moved to
            warnings.filterwarnings("ignore", message=".*The dirpath has changed.*")
            # networks that a loss is taken of are frozen
            warnings.filterwarnings("ignore", message=".*in eval mode at the start.*")
            # Lightning's own use of torch's pytree
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            trainer.fit(module, batches, validation, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
