"""``fit``: train a model on slides, with checkpoints, a log and exact resume."""

import json
import logging
import os
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerStatus
from torch import nn
from torch.utils.data import DataLoader

from spatiagraph.data.convert import TissueData
from spatiagraph.data.loader import HierarchicalLoader, TileLoader, class_weights
from spatiagraph.data.slide import Slide
from spatiagraph.models.base import SlideModel
from spatiagraph.tasks.base import Task
from spatiagraph.tasks.defaults import default_task
from spatiagraph.training.embedding import encode_cells
from spatiagraph.training.module import TaskModule
from spatiagraph.training.progress import EpochProgress, History
from spatiagraph.training.record import run_record, task_record

logger = logging.getLogger(__name__)

RUN = "run.json"
LAST = Path("checkpoints") / "last.ckpt"


@dataclass(frozen=True)
class FitResult:
    """What a run leaves behind.

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


def fit(
    model: SlideModel,
    slides: Sequence[Slide],
    *,
    task: Task | None = None,
    max_epochs: int = 30,
    lr: float = 1e-3,
    tile_size: int | None = None,
    loader: Literal["tiles", "niches"] = "tiles",
    balance: str | None = None,
    cache_cells: bool = False,
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
        task: What to learn; that of :func:`~spatiagraph.tasks.default_task` when not given.
        max_epochs: Passes over all cells.
        lr: Peak learning rate.
        tile_size: Core cells of a mini-batch, at most; ``model.tile_size`` when not given.
        loader: Mini-batches of ``"tiles"`` with all the context of their cells, or of whole
            ``"niches"`` from all over the slides, see
            :class:`~spatiagraph.data.HierarchicalLoader`.
        balance: Label of the model whose classes are to come up equally often; needs
            ``loader="niches"``.
        cache_cells: Encode every cell once, leave the cell encoder as it is and train what comes
            after it: the second of two stages, on whole regions of any size.
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
    ids = [slide.slide_id for slide in slides]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    if repeated or not ids:
        raise ValueError(f"Expected slides with different ids, got {repeated or 'no slide'}")
    if max_epochs < 1:
        raise ValueError(f"Expected at least one epoch, got max_epochs={max_epochs}")
    task = default_task(model, seed=seed) if task is None else task
    if cache_cells and not task.takes_cached_cells:
        raise ValueError(
            f"Expected a task that can do with cached cells, {type(task).__name__} hides parts of "
            "the cells themselves: train with cache_cells=False"
        )
    if loader not in ("tiles", "niches") or (balance is not None and loader == "tiles"):
        raise ValueError(
            f"Expected 'loader' tiles, or niches with or without 'balance', got {loader!r} with "
            f"balance={balance!r}"
        )
    tile_size = model.tile_size if tile_size is None else tile_size
    record = run_record(
        model,
        slides,
        task=task_record(task),
        max_epochs=max_epochs,
        lr=lr,
        tile_size=tile_size,
        loader=loader,
        balance=balance,
        cache_cells=cache_cells,
        precision=str(precision),
        seed=seed,
    )
    folder = None if out is None else Path(out)
    if folder is not None:
        _check_folder(folder, record, resume)
    prepared = [model.prepare(slide, progress=progress) for slide in slides]
    if cache_cells:
        prepared = [_with_cached_cells(model, data, progress) for data in prepared]
    batches = _loader(model, prepared, loader, balance, tile_size, seed)
    checkpoint = None if folder is None else _claim(folder, record)
    history = History(None if folder is None else folder / "history.csv")
    module = TaskModule(task.train(), lr=lr, seed=seed)
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
        callbacks=[history, *_progress(progress), *_checkpoints(folder), *callbacks],
        enable_checkpointing=folder is not None,
        enable_progress_bar=progress,
        enable_model_summary=False,
        deterministic="warn",
        log_every_n_steps=1,
    )
    start = time.perf_counter()
    with _frozen(model.cell_encoder if cache_cells else None):
        _run(trainer, module, batches, checkpoint)
    seconds = time.perf_counter() - start
    if not history.rows:
        raise ValueError("Expected at least one training step, but none was taken")
    model.eval()
    if folder is not None and trainer.is_global_zero:
        model.save_pretrained(folder / "model")
    cells = sum(row["cells"] for row in history.rows)
    logger.info("trained on %d cells in %.1f s", cells, seconds)
    spent = sum(row["seconds"] for row in history.rows)
    return FitResult(history.frame, record, folder, cells / max(spent, 1e-9))


def _strategy(strategy: str, accelerator: str, devices: int | str) -> str:
    if strategy != "auto":
        return strategy
    gpus = torch.cuda.device_count() if accelerator in ("auto", "gpu", "cuda") else 1
    several = devices > 1 if isinstance(devices, int) else gpus > 1
    return "ddp_find_unused_parameters_true" if several else "auto"


def _loader(
    model: SlideModel,
    slides: list[TissueData],
    kind: str,
    balance: str | None,
    tile_size: int,
    seed: int,
) -> DataLoader[TissueData]:
    if kind == "tiles":
        return TileLoader(slides, tile_size, model.num_hops, shuffle=True, seed=seed)
    weights = None
    if balance is not None:
        names = [] if model.prepare.labels is None else list(model.prepare.labels.classes)
        if balance not in names:
            raise ValueError(f"Expected 'balance' among the labels {names}, got {balance!r}")
        weights = class_weights([data.labels[:, names.index(balance)] for data in slides])
    return HierarchicalLoader(slides, tile_size, weights=weights, seed=seed)


def _with_cached_cells(model: SlideModel, data: TissueData, progress: bool) -> TissueData:
    """The slide with the embeddings of its cells in place of their images."""
    data.z = encode_cells(model, data, progress=progress)
    for key in ("image", "image_mask", "window_um"):
        if key in data:
            del data[key]
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


def _check_folder(folder: Path, record: dict[str, Any], resume: bool) -> None:
    """Refuse a folder that is none, or holds another run."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"Expected a folder for the run, {str(folder)!r} is a file")
    run_file = folder / RUN
    if run_file.is_file():
        if not resume:
            raise ValueError(f"Expected an empty folder, {str(folder)!r} holds a run: resume it")
        previous, description = json.loads(run_file.read_text()), json.loads(json.dumps(record))
        changed = sorted(
            k for k in {*previous, *description} if previous.get(k) != description.get(k)
        )
        if changed:
            raise ValueError(
                f"The folder {str(folder)!r} holds another run (different: {', '.join(changed)}); "
                "choose another folder, or the same arguments to resume"
            )


def _claim(folder: Path, record: dict[str, Any]) -> Path | None:
    """Make the folder this run's own; the checkpoint to go on from, if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{RUN}.new"
    new.write_text(json.dumps(record, indent=1))
    os.replace(new, folder / RUN)
    last = folder / LAST
    return last if last.is_file() else None


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
            # Lightning's own use of torch's pytree
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        if trainer.state.status != TrainerStatus.INTERRUPTED:
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
