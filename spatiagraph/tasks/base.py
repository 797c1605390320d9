"""The interface between a model and a training loop."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
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
        n: Cells (or crops, pairs, …) the loss is a mean over; weighs the batch in averages.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    n: int


class Watched(NamedTuple):
    """Validation score that says which weights are best.

    Attributes:
        name: ``"loss"``, or one of the parts of the task.
        highest: Whether more is better.
    """

    name: str = "loss"
    highest: bool = False


class Task(nn.Module, ABC):
    """Objective of a model on one batch. Any loop can use it:

    >>> for batch in loader:                      # doctest: +SKIP
    ...     optimizer.zero_grad()
    ...     task.loss(batch).loss.backward()
    ...     optimizer.step()
    """  # noqa: D415

    model: nn.Module
    takes_cached_cells = False
    """True if the task can do with cell embeddings computed once, ``batch.z``."""
    watched = Watched()
    """Score of the validation set by which weights are kept and training stops."""

    @property
    def embedder(self) -> nn.Module | None:
        """Module whose outputs are embeddings, for a run to watch; ``None`` for other models."""
        return self.model.embedder if isinstance(self.model, SlideModel) else None

    @property
    def anchored(self) -> Sequence[Tensor]:
        """Parameters that weight decay pulls to where they start; see ``SlideModel.anchored``."""
        return self.model.anchored if isinstance(self.model, SlideModel) else ()

    def __init_subclass__(cls, *, pretrains: type[SlideModel] | None = None, **kwargs: Any):
        """Make the task the one that ``fit`` trains a model with, unless it is given another.

        Args:
            pretrains: Class of the model; the task is called as ``(model, seed=…)``.
            **kwargs: Of other bases.
        """
        super().__init_subclass__(**kwargs)
        if pretrains is not None:
            pretrains.pretraining = cls

    @classmethod
    def for_model(cls, model: SlideModel, *, seed: int = 0, cached_cells: bool = False) -> "Task":
        """Task that pre-trains a model of the class; this one, unless a sub-class chooses another.

        Args:
            model: The model.
            seed: Seed of what the task itself learns.
            cached_cells: Whether cells are encoded once, and only what comes after them learns.
        """
        return cls(model, seed=seed)

    @abstractmethod
    def loss(self, batch: Any, generator: torch.Generator | None = None) -> LossOutput:
        """Loss of one batch.

        Args:
            batch: Whatever the batches are that the task learns from: a mapping or named tuple of
                tensors, or an object with ``to(device)``. Of cells with their context,
                ``batch.core`` marks those that count.
            generator: Source of the randomness of this batch (masks); torch's own when ``None``.
        """

    def at_step(self, step: int, num_steps: int) -> None:
        """Follow the progress of a run, before each batch of training; most tasks need not.

        Args:
            step: Steps taken so far.
            num_steps: Steps of the run.
        """

    def blame(self, batch: Any) -> str:
        """Likely cause of a loss that is not finite, to end the sentence "The loss is nan …".

        Of cells with their context it names the cells, of other batches the tensor and its rows.

        Args:
            batch: The batch.
        """
        if isinstance(batch, Data) and "core" in batch and "cell_index" in batch:
            return _cells(batch)
        for name, value in _tensors(batch):
            wrong = ~torch.isfinite(value.flatten(1) if value.dim() > 1 else value[:, None]).all(1)
            if bool(wrong.any()):
                rows = wrong.nonzero().squeeze(1)
                return (
                    f"because of {name!r} of {rows.numel()} of {len(wrong)} rows of the batch, "
                    f"first rows {rows[:5].tolist()}: leave them out"
                )
        return "in a batch whose own numbers are finite: lower the learning rate"


def _cells(batch: Data) -> str:
    """Cells whose input is not finite, or else those of the batch, by their rows in the slide."""
    bad = ~torch.isfinite(batch.pos).all(1)
    for key in ("x", "image", "z"):
        value = batch.get(key)
        if isinstance(value, Tensor) and value.layout is torch.strided:
            bad |= ~torch.isfinite(value.flatten(1)).all(1)
    found = bool(bad.any())
    rows = batch.cell_index[bad if found else batch.core]
    cause = "because of the input of" if found else "in a batch with"
    return f"{cause} {rows.numel()} cells, first rows {rows[:5].tolist()}: lower the learning rate"


def _tensors(batch: Any, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    """Dense tensors of numbers in a batch, with the names they go by."""
    if isinstance(batch, Tensor):
        if batch.layout is torch.strided and batch.is_floating_point() and batch.dim():
            yield name, batch
    elif isinstance(batch, Mapping) or hasattr(batch, "_asdict"):
        items = batch if isinstance(batch, Mapping) else batch._asdict()
        for key, value in items.items():
            yield from _tensors(value, str(key))
    elif isinstance(batch, Data):
        yield from _tensors(batch.to_dict())
    elif isinstance(batch, list | tuple):
        for i, value in enumerate(batch):
            yield from _tensors(value, f"{name}[{i}]")
