"""Token rules: cells as sequences of genes, made batch by batch from sparse counts."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from spatiagraph.data.recipe.rule import Rule, positive
from spatiagraph.data.tokens import rank_tokens


class TokenRule(Rule):
    """Rule that turns counts into tokens; called as ``rule(counts, measured)``.

    It is called with the cells of one batch at a time, so tokens of a whole slide are never held,
    and batches of a recipe with a token rule carry its tokens in place of dense counts ``x``.
    """

    @abstractmethod
    def __call__(self, counts: csr_matrix, measured: NDArray[np.bool_]) -> Mapping[str, Tensor]:
        """Attributes of a batch, one row per cell.

        Args:
            counts: Counts of the panel, ``[n, G]``.
            measured: Genes that the slide measured, ``[G]``.
        """


@dataclass(frozen=True)
class Ranks(TokenRule):
    """Expressed genes, largest first relative to their usual level, see ``rank_tokens``.

    A batch has ``gene_ids`` ``[n, L]`` int64, gene ``g`` of the panel being token ``g + 1`` and 0
    the padding, as long as its longest cell.

    Attributes:
        max_len: Most tokens of a cell.
        medians: Usual level of each gene of the panel, ``[G]``; 1 when ``None``.

    Raises:
        ValueError: If ``max_len`` is not positive, or medians do not fit the panel.
    """

    max_len: int = 2048
    medians: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        positive(self, "max_len", integer=True)
        if self.medians is not None:
            object.__setattr__(self, "medians", tuple(float(m) for m in self.medians))

    def __call__(self, counts: csr_matrix, measured: NDArray[np.bool_]) -> dict[str, Tensor]:
        tokens = np.where(measured, np.arange(1, counts.shape[1] + 1), -1)
        found = rank_tokens(counts, tokens, self.medians, max_len=self.max_len)
        return {"gene_ids": torch.from_numpy(found.ids.astype(np.int64))}
