"""``train``: any task on any batches, with checkpoints, a log and exact resume."""

import logging
import math
import os
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerStatus
from torch.utils.data import DataLoader

from spatiagraph._files import full_disk_named
from spatiagraph.data.convert import TissueData
from spatiagraph.nn.hub import PretrainedModel
from spatiagraph.tasks.base import Task
from spatiagraph.training.averaging import WarmAverage
from spatiagraph.training.checkpoints import LAST, CheckpointFiles
from spatiagraph.training.folder import HISTORY, MODEL, check_folder, claim, release
from spatiagraph.training.module import TaskModule
from spatiagraph.training.progress import EpochProgress, History

logger = logging.getLogger(__name__)

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # which Lightning sets along with deterministic algorithms


@dataclass(frozen=True)
class FitResult:
    """Result of a training run.

    Attributes:
        history: One row per epoch: epoch, cells, seconds, lr, loss and its parts.
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
    batches: DataLoader[TissueData],
    *,
    record: dict[str, Any] | None = None,
    max_epochs: int = 30,
    lr: float = 1e-3,
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
    """Train any task on any batches; what :func:`~spatiagraph.training.fit` and others rest on.

    With ``out``, the run keeps ``history.csv``, a checkpoint after every epoch and, at the end, the
    model under ``out/model``. Called again after an interruption it goes on where it stopped and
    ends with the weights of an uninterrupted run; called with another ``record`` it refuses.

    Args:
        task: What to learn; ``task.model`` is changed in place, and saved if it can be.
        batches: PyG data with ``pos``, ``core`` and ``cell_index``, for the task to learn from.
        record: Describes the run, as plain values: equal for runs that are the same.
        max_epochs: Passes over the batches.
        lr: Peak learning rate.
        average: Decay of an exponential moving average of the weights, which the model ends with;
            see :class:`~spatiagraph.training.WarmAverage`. ``None`` for none.
        accelerator: ``"auto"``, ``"cpu"``, ``"gpu"``, … as in Lightning.
        devices: Devices to use, as in Lightning; the batches must know their process.
        strategy: ``"ddp"``, ``"fsdp"``, … as in Lightning; on several devices ``"auto"`` is DDP
            that allows for parts of the model which a batch has nothing for.
        precision: ``"32-true"``, ``"bf16-mixed"``, … as in Lightning.
        seed: Seed of masks and of dropout.
        out: Folder of the run; nothing is written without it.
        resume: Go on from the folder's last checkpoint; ``False`` refuses a folder with a run.
        progress: Show a progress bar.
        callbacks: More Lightning callbacks.

    Raises:
        ValueError: If an argument is out of range, the folder holds another run or checkpoints none
            of which opens, nothing was trained, or the loss stops being finite. A folder that was
            free before is free again unless an epoch was finished.
        DiskFullError: If the folder takes no more; finished epochs are safe.
        KeyboardInterrupt: On Ctrl-C, once the last finished epoch is safe.
    """
    check_numbers(max_epochs=max_epochs, lr=lr)
    record = {} if record is None else record
    folder = None if out is None else Path(out)
    if folder is not None:
        check_folder(folder, record, resume)
    history = History(None if folder is None else folder / HISTORY)
    module = TaskModule(task.train(), lr=lr, seed=seed)
    averages = [] if average is None else [WarmAverage(average)]
    with _torch_settings_kept():
        trainer = Trainer(
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            strategy=_strategy(strategy, accelerator, devices),
            use_distributed_sampler=False,  # ours know their process
            precision=precision,
            default_root_dir=folder,
            gradient_clip_val=1.0,
            logger=_logger(folder),
            plugins=[] if folder is None else [CheckpointFiles(record)],
            callbacks=[history, *averages, *_progress(progress), *_checkpoints(folder), *callbacks],
            enable_checkpointing=folder is not None,
            enable_progress_bar=progress,
            enable_model_summary=False,
            deterministic="warn",
            log_every_n_steps=1,
        )
        checkpoint = None if folder is None else claim(folder, record)  # all arguments are good
        start = time.perf_counter()
        with _kept_in(folder):
            _run(trainer, module, batches, checkpoint)
            if not history.rows:
                raise ValueError("Expected at least one training step, but none was taken")
        seconds = time.perf_counter() - start
    task.model.eval()
    if folder is not None and trainer.is_global_zero and isinstance(task.model, PretrainedModel):
        task.model.save_pretrained(folder / MODEL)
    cells = sum(row["cells"] for row in history.rows)
    logger.info("trained on %d cells in %.1f s", cells, seconds)
    spent = sum(row["seconds"] for row in history.rows)
    return FitResult(history.frame, record, folder, cells / max(spent, 1e-9))


def check_numbers(*, max_epochs: int, lr: float) -> None:
    """Refuse a number of epochs or a learning rate that no run could use.

    Args:
        max_epochs: Passes over the batches.
        lr: Peak learning rate.

    Raises:
        ValueError: One is out of range.
    """
    if max_epochs < 1:
        raise ValueError(f"Expected at least one epoch, got max_epochs={max_epochs}")
    if not (math.isfinite(lr) and lr > 0):
        raise ValueError(f"Expected a learning rate above 0, such as 1e-3, got lr={lr}")


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
    except BaseException:
        release(folder)
        raise


def _strategy(strategy: str, accelerator: str, devices: int | str) -> str:
    if strategy != "auto":
        return strategy
    gpus = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 1
    several = devices > 1 if isinstance(devices, int) else gpus > 1
    return "ddp_find_unused_parameters_true" if several else "auto"


def _logger(folder: Path | None) -> Any:
    if folder is None or find_spec("tensorboard") is None:
        return False
    return TensorBoardLogger(str(folder), name="tensorboard", version="")


def _progress(progress: bool) -> list[Callback]:
    return [EpochProgress()] if progress else []


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
    trainer: Trainer, module: TaskModule, loader: DataLoader[TissueData], checkpoint: Path | None
) -> None:
    """``trainer.fit`` that ends in ``KeyboardInterrupt``, not in ``sys.exit``, on Ctrl-C."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        with warnings.catch_warnings():
            # tiles are cut in memory: workers would only copy the slides
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists.*")
            # a run goes on where its folder was moved to
            warnings.filterwarnings("ignore", message=".*The dirpath has changed.*")
            # networks that a loss is taken of are frozen
            warnings.filterwarnings("ignore", message=".*in eval mode at the start.*")
            # Lightning's own use of torch's pytree
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
