"""Condition of image generation: context of the cell, its genes, and a transition."""

from typing import NamedTuple

from torch import Tensor


class Condition(NamedTuple):
    """Condition of some cells; ``None`` where the model was built without.

    Attributes:
        context: Embeddings of the cells, their niches, their regions, side by side, ``[B, E]``.
        genes: Expression, ``[B, G]``; NaN where it was not measured, which tells nothing.
        transition: Number of the transition, ``[B]``.
    """

    context: Tensor | None = None
    genes: Tensor | None = None
    transition: Tensor | None = None

    def take(self, rows: Tensor) -> "Condition":
        """Condition of some of the cells.

        Args:
            rows: Their rows, ``[B']``.
        """
        return Condition(*(None if part is None else part[rows] for part in self))
