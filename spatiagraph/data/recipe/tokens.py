"""Token rules: cells as sequences of genes, made batch by batch from sparse counts."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from spatiagraph.data.convert.counts import ragged_tensor
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe.rule import Rule, positive
from spatiagraph.data.slide import Slide
from spatiagraph.data.tokens import ragged_rank_tokens
from spatiagraph.data.vocabulary import GeneVocabulary


class TokenRule(Rule):
    """Rule that turns counts into tokens; called as ``rule(counts, measured)``.

    It is called with the cells of one batch at a time, so tokens of a whole slide are never held,
    and batches of a recipe with a token rule carry its tokens in place of dense counts ``x``.
    """

    def check(self, slide: Slide) -> None:
        """Refuse a slide that the rule cannot read; nothing is refused where this is not said.

        Args:
            slide: The slide.

        Raises:
            ValueError: If its values are of another kind.
        """

    def reading(self, panel: GenePanel) -> "TokenRule":
        """The rule for a panel: itself, unless it takes ids or levels from a vocabulary.

        Args:
            panel: The genes whose counts it will be called with.
        """
        return self

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

    A batch has ``gene_ids``: a sparse CSR tensor ``[n, L]`` int64 without padding, whose values
    are token ids, whose columns are ranks within the cell and whose ``crow_indices()`` say where
    each cell starts. Ids are those of the recipe's
    :class:`~spatiagraph.data.GeneVocabulary`; of another panel gene ``g`` is token ``g + 1``.

    Attributes:
        max_len: Most tokens of a cell, ``start`` included.
        medians: Usual level of each gene of the panel, ``[G]``; those of the vocabulary, or else
            1, when ``None``.
        start: Special token of the vocabulary that every cell begins with, such as ``"<cls>"``.
        ties: What decides between equal ratios, see ``rank_tokens``.
        force: Accept values that are not counts.

    Raises:
        ValueError: If ``max_len`` is not positive, or medians do not fit the panel.
    """

    max_len: int = 2048
    medians: tuple[float, ...] | None = None
    start: str | None = None
    ties: Literal["vocabulary", "count"] = "vocabulary"
    force: bool = False

    def __post_init__(self) -> None:
        positive(self, "max_len", integer=True)
        if self.medians is not None:
            object.__setattr__(self, "medians", tuple(float(m) for m in self.medians))

    def check(self, slide: Slide) -> None:
        if slide.expression != "counts" and not self.force:
            raise ValueError(
                f"Expected raw counts in slide {slide.slide_id!r}, got normalised values. Put "
                f"counts in layers['counts'], or rank the values as they are with "
                f"{type(self).__name__}(force=True)"
            )

    def reading(self, panel: GenePanel) -> TokenRule:
        if not isinstance(panel, GeneVocabulary):
            if self.start is not None:
                raise ValueError(
                    f"Expected a GeneVocabulary as panel, which has the token {self.start!r}, got "
                    f"a {type(panel).__name__}"
                )
            return self
        cls = None if self.start is None else panel.token(self.start)
        medians = panel.medians if self.medians is None else self.medians
        return _Reading(self, panel.ranges["gene"].start, medians, cls)

    def __call__(self, counts: csr_matrix, measured: NDArray[np.bool_]) -> dict[str, Tensor]:
        return _Reading(self, 1, self.medians, None)(counts, measured)


@dataclass(frozen=True)
class _Reading(TokenRule):
    """Ranks with the ids and levels of a vocabulary; made for a slide and never saved.

    Attributes:
        rule: The rule.
        first: Id of the first gene.
        medians: Usual level of each gene.
        cls: Id that every cell begins with.
    """

    rule: Ranks
    first: int
    medians: tuple[float, ...] | None
    cls: int | None

    def __call__(self, counts: csr_matrix, measured: NDArray[np.bool_]) -> dict[str, Tensor]:
        tokens = np.where(measured, np.arange(counts.shape[1]) + self.first, -1)
        found = ragged_rank_tokens(
            counts,
            tokens,
            self.medians,
            ties=self.rule.ties,
            max_len=self.rule.max_len,
            cls=self.cls,
            force=self.rule.force,
        )
        return {"gene_ids": ragged_tensor(found.ids, found.ptr)}
