"""Result of a method that finds domains."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class FoundDomains(NamedTuple):
    """Domains of cells, and how far they can be trusted.

    Attributes:
        labels: Domain of each cell, ``[N]`` in ``[0, K)``, the largest first; -1 for a cell
            without an embedding.
        confidence: How surely a cell is in its domain, ``[N]`` in ``[0, 1]``; NaN for none.
        stability: Agreement between clusterings of these slides, an adjusted Rand index: 1 where
            all are the same, 0 where they agree as chance does.
    """

    labels: NDArray[np.int64]
    confidence: NDArray[np.float64]
    stability: float


def spread(
    labels: NDArray[np.int64],
    confidence: NDArray[np.float64],
    own: NDArray[np.bool_],
    stability: float,
) -> FoundDomains:
    """Domains of all cells from those of the cells that have an embedding, numbered by size.

    Args:
        labels: ``[n]``.
        confidence: ``[n]``.
        own: Which of all cells these are, ``[N]``.
        stability: Of the slides.
    """
    by_size = np.argsort(-np.bincount(labels), kind="stable")
    everywhere = np.full(len(own), -1)
    everywhere[own] = np.argsort(by_size)[labels]
    sure = np.full(len(own), np.nan)
    sure[own] = confidence
    return FoundDomains(everywhere, sure, stability)
