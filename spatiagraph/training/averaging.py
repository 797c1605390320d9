"""A moving average of the weights."""

from collections.abc import Iterator
from itertools import chain

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn


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
        self._aside: list[Tensor] = []

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

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average; the weights are set aside, for a swap would round the average."""
        self._aside = [tensor.detach().clone() for tensor in _state(pl_module)]
        if self._average_model is not None:
            self._copy_average_to_current(pl_module)

    @torch.no_grad()
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the weights that were set aside."""
        for tensor, kept in zip(_state(pl_module), self._aside, strict=True):
            tensor.data.copy_(kept)
        self._aside = []


def _state(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())
