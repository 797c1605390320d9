"""``BestWeights``: early stopping on the validation loss."""

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn


class BestWeights(Callback):
    """Keeps the weights of the lowest validation loss and stops when it has not fallen for long.

    They are part of a checkpoint, so that a resumed run stops where an uninterrupted one does, with
    the same weights. With a moving average, the average is what is validated and kept.

    Args:
        patience: Epochs without a lower loss after which training stops.
    """

    def __init__(self, patience: int):
        self.patience = patience
        self.best = math.inf
        self.since = 0
        self.weights: dict[str, Tensor] = {}

    def restore(self, task: nn.Module) -> None:
        """Give the task the weights that were kept, if any were.

        Args:
            task: The task that was trained.
        """
        if self.weights:
            task.load_state_dict(self.weights)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = float(trainer.callback_metrics["val_loss"])
        self.since += 1
        if loss < self.best:
            self.best, self.since = loss, 0
            state = pl_module.get_submodule("task").state_dict()
            self.weights = {name: value.detach().cpu().clone() for name, value in state.items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)  # a run that had stopped and is called again takes no other step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        trainer.should_stop = trainer.should_stop or self.since >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "since": self.since, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.since = state_dict["best"], state_dict["since"]
        self.weights = state_dict["weights"]
