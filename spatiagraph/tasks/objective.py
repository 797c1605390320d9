"""Objectives: weighted parts of a task that share the forward passes of a batch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor, nn

from spatiagraph.tasks.base import LossOutput, Task
from spatiagraph.tasks.streams import Streams

View = TypeVar("View")
"""Forward passes of one batch, computed when an objective first looks at them."""


class Objective(nn.Module, ABC, Generic[View]):
    """One term of a loss. What only it learns (a head, an adversary) is part of it.

    Attributes:
        name: Name of the term in the log.
        weight: Factor of the term; 0 leaves it out and saves what it would cost.

    Raises:
        ValueError: If the weight is negative.
    """

    name: str

    def __init__(self, weight: float = 1.0):
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"Expected a weight of 0 or more for {self.name!r}, got {weight}")
        self.weight = weight

    @abstractmethod
    def forward(self, view: View) -> Tensor | None:
        """Scalar loss; ``None`` where the batch has nothing for it."""

    def extra_repr(self) -> str:
        return f"weight={self.weight}"


class ObjectiveTask(Task, Generic[View]):
    """Task that is a weighted sum of objectives.

    A sub-class says what the objectives look at (:meth:`view`); any list of objectives on that view
    is a task. Whatever is random is drawn from a stream of its own, by name, on the device of the
    parameters. Batches that are no cells with their context also need :meth:`count`.

    Args:
        model: The model to train.
        objectives: The terms; their names differ.

    Raises:
        ValueError: If two have one name.
    """

    def __init__(self, model: Any, objectives: Sequence[Objective[View]]):
        super().__init__()
        names = [objective.name for objective in objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"Expected objectives with different names, got {', '.join(names)}")
        self.model = model
        self.objectives = nn.ModuleList(objectives)

    @abstractmethod
    def view(self, batch: Any, streams: Streams) -> View:
        """Forward passes of a batch.

        Args:
            batch: Cells with their context, or whatever the task learns from.
            streams: Random streams of this step.
        """

    def count(self, batch: Any) -> int:
        """Number of cells (or crops, pairs, …) that the loss of a batch is a mean over.

        Args:
            batch: The batch; by default the cells of its ``core`` count.
        """
        return int(batch.core.sum())

    @property
    def _terms(self) -> list[Objective[View]]:
        """Objectives by their type, which a list of modules forgets."""
        return cast("list[Objective[View]]", list(self.objectives))

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each objective by name, those of weight 0 included."""
        return {objective.name: objective.weight for objective in self._terms}

    def loss(self, batch: Any, generator: torch.Generator | None = None) -> LossOutput:
        device = next(self.parameters()).device
        view = self.view(batch, Streams(generator, device))
        values: dict[str, Tensor] = {}
        for objective in self._terms:
            value = objective(view) if objective.weight else None
            if value is not None:
                values[objective.name] = value
        if not values:
            raise ValueError("Expected an objective that the model and the batch allow, got none")
        parts = {name: value.detach() for name, value in values.items()}
        if not self.training:
            parts |= self.measure(view)
        return LossOutput(self.combine(values), parts, self.count(batch))

    def measure(self, view: View) -> dict[str, Tensor]:
        """Scores of a validation batch that are no losses, by name; none of most tasks.

        Args:
            view: Forward passes of the batch.
        """
        return {}

    def combine(self, values: Mapping[str, Tensor]) -> Tensor:
        """One loss of the terms that a batch has: their weighted sum.

        Args:
            values: Name of each objective → its scalar.
        """
        weights = self.weights
        return torch.stack([weights[name] * value for name, value in values.items()]).sum()
