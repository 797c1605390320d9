"""A moving average of the weights."""

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class WarmAverage(WeightAveraging):
    r"""Exponential moving average of the weights that forgets the start quickly.

    After step :math:`n = 0, 1, \ldots` the average moves to the weights with the decay

    .. math:: \min\left(d, \; \frac{1 + n}{10 + n}\right),

    so that it first follows closely and later averages over about :math:`1 / (1 - d)` steps. The
    model ends with the average; checkpoints hold both, and a resumed run goes on with both. The
    average has the precision that the model had before training: one of few digits would not move.

    Args:
        decay: :math:`d`, in [0, 1).

    Raises:
        ValueError: The decay is not in [0, 1).
    """

    def __init__(self, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ValueError(f"Expected 'average' as a decay in [0, 1), got {decay}")

        @torch.no_grad()
        def move(average: list[Tensor], current: list[Tensor], num_averaged: Tensor | int) -> None:
            n = int(num_averaged) - 1  # the start counts as one
            for mean, value in zip(average, current, strict=True):
                mean.lerp_(value.to(mean.dtype), 1 - min(decay, (1 + n) / (10 + n)))

        super().__init__(use_buffers=False, multi_avg_fn=move)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            self._average_model.n_averaged.fill_(1)  # it is a copy of the start already

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the model to its device: Lightning averages where the model was before that."""
        if self._average_model is not None:
            self._average_model.to(pl_module.device)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run that was over has no end of training: the average is taken here as well."""
        self.on_train_end(trainer, pl_module)
