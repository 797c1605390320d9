"""The interface between a model and a training loop."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from spatiagraph.models.base import SlideModel


class LossOutput(NamedTuple):
    """Result of one batch.

    Attributes:
        loss: Scalar to minimise.
        parts: Named terms of the loss, detached, for the log.
        n: Cells the loss is a mean over; weighs the batch in averages.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    n: int


class Task(nn.Module, ABC):
    """Objective of a model on one batch. Any loop can use it:

    >>> for batch in loader:                      # doctest: +SKIP
    ...     optimizer.zero_grad()
    ...     task.loss(batch).loss.backward()
    ...     optimizer.step()
    """  # noqa: D415

    model: nn.Module
    takes_cached_cells = False
    """Whether the task can do with cell embeddings computed once, ``batch.z``."""

    def __init_subclass__(cls, *, pretrains: type[SlideModel] | None = None, **kwargs: Any):
        """Make the task the one that ``fit`` trains a model with, unless told otherwise.

        Args:
            pretrains: Class of the model; the task is called as ``(model, seed=…)``.
            **kwargs: Of other bases.
        """
        super().__init_subclass__(**kwargs)
        if pretrains is not None:
            pretrains.pretraining = cls

    @abstractmethod
    def loss(self, batch: Data, generator: torch.Generator | None = None) -> LossOutput:
        """Loss of one batch.

        Args:
            batch: Cells with their context; ``batch.core`` marks the cells that count.
            generator: Source of the randomness of this batch (masks); torch's own when ``None``.
        """
