"""Progress and history of a run."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar
from torch import distributed
from tqdm.auto import tqdm

from spatiagraph._tables import write_csv
from spatiagraph.training.health import RankMeter, gradient_norm, run_warnings
from spatiagraph.training.module import TaskModule
from spatiagraph.training.movement import Movement

logger = logging.getLogger(__name__)

VALIDATION = "val_"
"""Start of the names of a loss and its parts on the validation set."""
START = f"start_{VALIDATION}"
"""Start of the names of the same before the first step."""


class History(Callback):
    """Mean loss and its parts of every epoch, kept through a resume and written as CSV.

    Beside them the validation loss, where there is validation, and the health of the run: the mean
    norm of the gradients before they are clipped, the effective rank of the cell embeddings, where
    the model has any, the sum of the learning rates of all steps, which no weight can move farther
    than by much, and how far embeddings and gates did move. Log lines at the end say what is wrong
    with the run, see :func:`~spatiagraph.training.health.run_warnings`. All of it goes to the
    loggers of the trainer, and can be monitored by other callbacks.

    Args:
        path: CSV file, rewritten after every epoch; ``None`` to keep it in memory.
        movement: How far the model moved; ``None`` for models that embed no cells.
    """

    def __init__(self, path: Path | None = None, movement: Movement | None = None):
        self.path = path
        self.movement = movement
        self.rows: list[dict[str, float]] = []
        self._training, self._validation = Means(), Means()
        self._validated: dict[str, float] = {}
        self._at_start: dict[str, float] = {}
        self._lr_sum = 0.0
        self._start = 0.0
        self._grad_norm: float | None = None
        self._rank: RankMeter | None = None

    @property
    def frame(self) -> pd.DataFrame:
        """A row per epoch: epoch, steps, cells, seconds, lr, health, loss and its parts."""
        return pd.DataFrame(self.rows)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TaskModule)  # which is what train hands to its trainer
        self._rank = RankMeter(pl_module.task.embedder)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training, self._validated = Means(), {}
        if self._rank is not None:
            self._rank.reset()
        self._start = time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self._grad_norm = gradient_norm(pl_module)
        self._lr_sum += optimizer.param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        norm = {} if self._grad_norm is None else {"grad_norm": self._grad_norm}
        self._training.add(outputs["n"], {**norm, "loss": outputs["total"], **outputs["parts"]})

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation = Means()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._validation.add(outputs["n"], {"loss": outputs["total"], **outputs["parts"]})

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # every process sees all of it: nothing is to be gathered
        if not self._validation.total:
            raise ValueError(
                "Expected something to score in what is held out for validation, got nothing: hold "
                "out more or larger slides, or pass validation=None"
            )
        self._validated = {
            f"{VALIDATION}{name}": value for name, value in self._validation.values.items()
        }
        if trainer.sanity_checking and not self.rows:  # before the first step, not on a resume
            assert isinstance(pl_module, TaskModule)
            for name in {"loss", pl_module.task.watched.name} & {
                key.removeprefix(VALIDATION) for key in self._validated
            }:
                self._at_start[f"{START}{name}"] = self._validated[f"{VALIDATION}{name}"]
        _log(pl_module, self._validated)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            self._training.gather()
            if self._rank is not None and self._rank.gram is not None:
                gram = self._rank.gram.to(pl_module.device)
                self._rank.gram = trainer.strategy.reduce(gram, reduce_op="sum").cpu()
        rank = None if self._rank is None else self._rank.value()
        row = {
            "cells": self._training.total,
            "seconds": time.perf_counter() - self._start,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "lr_sum": self._lr_sum,
            **({} if rank is None else {"effective_rank": rank}),
            **({} if self.movement is None else self.movement.values()),
            **self._training.values,
        }
        _log(pl_module, row)
        number = {"epoch": trainer.current_epoch, "steps": trainer.global_step}
        self.rows.append({**number, **row, **self._validated, **self._at_start})
        if trainer.is_global_zero:
            self.write()

    def write(self) -> None:
        """Write the table, if the run has a folder."""
        if self.path is not None:
            write_csv(self.frame, self.path)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TaskModule)
        watched = pl_module.task.watched
        for warning in run_warnings(self.frame, watched) if trainer.is_global_zero else ():
            logger.warning(warning)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._rank is not None:
            self._rank.close()
            self._rank = None

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "at_start": self._at_start, "lr_sum": self._lr_sum}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]
        self._at_start, self._lr_sum = state_dict["at_start"], state_dict["lr_sum"]


class Means:
    """Weighted means of named numbers, each over the batches that have it."""

    def __init__(self) -> None:
        self.total = 0.0
        self._sums: dict[str, tuple[float, float]] = {}

    def add(self, weight: float, numbers: Mapping[str, Any]) -> None:
        """Add those of a batch.

        Args:
            weight: Cells of the batch.
            numbers: By name.
        """
        self.total += weight
        for name, value in numbers.items():
            total, weights = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (total + weight * float(value), weights + weight)

    def gather(self) -> None:
        """Add those of the other processes; a process may lack some."""
        of_all: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(of_all, (self.total, self._sums))
        self.total, self._sums = 0.0, {}
        for cells, sums in of_all:
            self.total += cells
            for name, (value, weight) in sums.items():
                total, weights = self._sums.get(name, (0.0, 0.0))
                self._sums[name] = (total + value, weights + weight)

    @property
    def values(self) -> dict[str, float]:
        """Mean of each number."""
        return {name: total / max(weight, 1.0) for name, (total, weight) in self._sums.items()}


def _log(pl_module: LightningModule, values: dict[str, float]) -> None:
    """Show means of an epoch, alike in all processes, to loggers and to other callbacks."""
    pl_module.log_dict(values, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)


class EpochProgress(ProgressBar):
    """One bar over all epochs, with the loss and the time that is left."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm[Any] | None = None
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar = tqdm(
            total=None if trainer.max_epochs == -1 else trainer.max_epochs,
            initial=trainer.current_epoch,
            desc="fit",
            unit="epoch",
            disable=not (self._enabled and trainer.is_global_zero),
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{float(outputs['total']):.4f}", refresh=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(1)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End the line of the bar: what went wrong is said on one of its own."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
