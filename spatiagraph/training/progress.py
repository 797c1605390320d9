"""Progress and history of a run."""

import logging
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar
from tqdm.auto import tqdm

from spatiagraph._tables import write_csv
from spatiagraph.training.health import RankMeter, collapse_warning, gradient_norm

logger = logging.getLogger(__name__)


class History(Callback):
    """Mean loss and its parts of every epoch, kept through a resume and written as CSV.

    Beside them the health of the run: the mean norm of the gradients before they are clipped, and
    the effective rank of the cell embeddings, where the model has any; a log line at the end says
    when they have collapsed.

    Args:
        path: CSV file, rewritten after every epoch; ``None`` to keep it in memory.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._sums: dict[str, float] = {}
        self._start = 0.0
        self._grad_norm: float | None = None
        self._rank: RankMeter | None = None

    @property
    def frame(self) -> pd.DataFrame:
        """A row per epoch: epoch, cells, seconds, lr, rank, gradient norm, loss and its parts."""
        return pd.DataFrame(self.rows)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._rank = RankMeter(pl_module.task)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._sums = {"cells": 0.0}
        if self._rank is not None:
            self._rank.reset()
        self._start = time.perf_counter()

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self._grad_norm = gradient_norm(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        n = outputs["n"]
        self._sums["cells"] += n
        norm = {} if self._grad_norm is None else {"grad_norm": self._grad_norm}
        for name, value in {**norm, "loss": outputs["loss"], **outputs["parts"]}.items():
            self._sums[name] = self._sums.get(name, 0.0) + n * float(value)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size > 1:
            own = torch.tensor(list(self._sums.values()), device=pl_module.device)
            sums = trainer.strategy.reduce(own, reduce_op="sum").tolist()
            self._sums = dict(zip(self._sums, sums, strict=True))
            if self._rank is not None and self._rank.gram is not None:
                gram = self._rank.gram.to(pl_module.device)
                self._rank.gram = trainer.strategy.reduce(gram, reduce_op="sum").cpu()
        rank = None if self._rank is None else self._rank.value()
        cells = self._sums.pop("cells")
        row = {
            "epoch": trainer.current_epoch,
            "cells": cells,
            "seconds": time.perf_counter() - self._start,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            **({} if rank is None else {"effective_rank": rank}),
            **{name: total / max(cells, 1.0) for name, total in self._sums.items()},
        }
        self.rows.append(row)
        if trainer.logger is not None:
            trainer.logger.log_metrics(row, step=trainer.global_step)
        if self.path is not None and trainer.is_global_zero:
            write_csv(self.frame, self.path)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        warning = collapse_warning(self.frame)
        if warning is not None and trainer.is_global_zero:
            logger.warning(warning)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._rank is not None:
            self._rank.close()
            self._rank = None

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


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
            total=trainer.max_epochs,
            initial=trainer.current_epoch,
            desc="fit",
            unit="epoch",
            disable=not (self._enabled and trainer.is_global_zero),
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{float(outputs['loss']):.4f}", refresh=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
