"""Usual level of each gene on a technology: the median of its non-zero, depth-scaled counts."""

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.tokens import pairs

TARGET = 10_000.0
_LOW, _HIGH, _NUM_BINS = 1e-3, 1e4, 2048  # bins 0.79 % wide: their middles are within 0.4 %


def fit_medians(counts: csr_matrix, depth: ArrayLike | None = None) -> NDArray[np.float64]:
    """Median over the cells that express a gene of its count per 10,000.

    Args:
        counts: Raw counts, ``[N, G]``.
        depth: Total of each cell over all genes, ``[N]``; the sums of ``counts`` if not given.

    Returns:
        Medians ``[G]``; 1 for a gene that no cell expresses.

    Examples:
        >>> fit_medians(csr_matrix([[10, 2, 0, 4, 4], [1, 1, 1, 1, 0]]))
        array([3750., 1750., 2500., 2250., 2000.])
    """
    gene, value = _scaled(counts, depth)
    order = np.lexsort((value, gene))
    value = value[order]
    number = np.bincount(gene, minlength=counts.shape[1])
    seen = np.flatnonzero(number)
    start = (np.cumsum(number) - number)[seen]
    medians = np.ones(counts.shape[1])
    low, high = value[start + (number[seen] - 1) // 2], value[start + number[seen] // 2]
    medians[seen] = (low + high) / 2
    return medians


class StreamingMedians:
    """The same medians from parts of a corpus that does not fit in memory.

    Keeps a histogram per gene on a logarithmic grid of 2,048 bins between 0.001 and 10,000; a
    median is off by at most 0.4 %. Memory is 8 kB per gene.

    Args:
        num_genes: Number of genes, :math:`G`.
    """

    def __init__(self, num_genes: int):
        self.num_genes = num_genes
        self.histogram = np.zeros((num_genes, _NUM_BINS), dtype=np.uint32)

    def update(self, counts: csr_matrix, depth: ArrayLike | None = None) -> Self:
        """Add cells.

        Args:
            counts: Raw counts, ``[N, G]``.
            depth: Total of each cell over all genes, ``[N]``; the sums of ``counts`` if not given.
        """
        if counts.shape[1] != self.num_genes:
            raise ValueError(f"Expected counts of {self.num_genes} genes, got {counts.shape[1]}")
        gene, value = _scaled(counts, depth)
        place = np.log(value / _LOW) * (_NUM_BINS / np.log(_HIGH / _LOW))
        bins = np.clip(place.astype(np.int64), 0, _NUM_BINS - 1)
        number = np.bincount(gene * _NUM_BINS + bins, minlength=self.histogram.size)
        self.histogram += number.reshape(self.histogram.shape).astype(np.uint32)
        return self

    def medians(self) -> NDArray[np.float64]:
        """Medians so far, ``[G]``; 1 for a gene that no cell expressed."""
        below = self.histogram.cumsum(axis=1, dtype=np.int64)
        number = below[:, -1:]
        middle = _LOW * (_HIGH / _LOW) ** ((np.arange(_NUM_BINS) + 0.5) / _NUM_BINS)
        low = middle[(below > (number - 1) // 2).argmax(axis=1)]
        high = middle[(below > number // 2).argmax(axis=1)]
        return np.where(number[:, 0] > 0, (low + high) / 2, 1.0)


def _scaled(
    counts: csr_matrix, depth: ArrayLike | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Gene and count per 10,000 of each non-zero."""
    counts = pairs.canonical(counts)
    if depth is None:
        total = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    else:
        total = np.asarray(depth, dtype=np.float64)
    if total.shape != (counts.shape[0],):
        raise ValueError(f"Expected 'depth' of {counts.shape[0]} cells, got shape {total.shape}")
    keep = np.flatnonzero(counts.data > 0)
    value = (counts.data * TARGET) / np.repeat(total, np.diff(counts.indptr)).clip(min=1e-12)
    return counts.indices[keep].astype(np.int64), value[keep]
