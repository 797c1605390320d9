"""``BestWeights``: the weights of the best validation score, and early stopping."""

import math
import warnings
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from spatiagraph.tasks.base import Watched


class BestWeights(Callback):
    """Weights of the best validation score, kept; training stops when none was better for long.

    The score is the loss, or what the task says it watches, where the validation set has it.

    The weights before training count as well: what training made worse is not kept. They are part
    of a checkpoint, so that a resumed run stops where an uninterrupted one does, with the same
    weights. With a moving average, the average is what is validated and kept.

    Args:
        patience: Epochs without a better score after which training stops; ``None`` for never.
        min_steps: Steps before which training does not stop.
        watched: The score.
    """

    def __init__(self, patience: int | None, min_steps: int = 0, *, watched: Watched | None = None):
        self.watched = Watched() if watched is None else watched
        self.patience = patience
        self.min_steps = min_steps
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
        if trainer.sanity_checking and self.weights:
            return  # before the first step the start counts, on a resume it has been
        name = f"val_{self.watched.name}"
        if name not in trainer.callback_metrics and self.watched != Watched():
            warnings.warn(
                f"No {self.watched.name} of what is held out, which is too little for it: the loss "
                "is watched. Hold out more",
                stacklevel=2,
            )
            self.watched, name = Watched(), f"val_{Watched().name}"
        if name not in trainer.callback_metrics:
            raise ValueError(f"Expected {name!r} to watch in what is held out, got none")
        score = float(trainer.callback_metrics[name])
        cost = -score if self.watched.highest else score
        self.since += 1
        if cost < self.best:
            self.best, self.since = cost, 0
            state = pl_module.get_submodule("task").state_dict()
            self.weights = {name: value.detach().cpu().clone() for name, value in state.items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)  # a run that had stopped and is called again takes no other step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        late = self.patience is not None and self.since >= self.patience
        late = late and trainer.global_step >= self.min_steps
        trainer.should_stop = trainer.should_stop or late

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "since": self.since, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.since = state_dict["best"], state_dict["since"]
        self.weights = state_dict["weights"]
