"""A fixed number of genes per cell with their counts, for transformers over genes."""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.tokens import pairs

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)


class CountTokens(NamedTuple):
    """Sampled genes of each cell, in panel order, padded on the right.

    Attributes:
        genes: Columns of the panel, ``[N, L]`` int32; 0 on padding.
        values: Their counts, ``[N, L]`` float32; 0 on padding.
        mask: Places that hold a gene, ``[N, L]``.
        depth: Total of each cell over all genes, before sampling, ``[N]``.
    """

    genes: NDArray[np.int32]
    values: NDArray[np.float32]
    mask: NDArray[np.bool_]
    depth: NDArray[np.float32]


def count_tokens(
    counts: csr_matrix,
    measured: ArrayLike | None = None,
    *,
    length: int | None = 1000,
    fill_zeros: bool = True,
    depth: ArrayLike | None = None,
    seed: int = 0,
) -> CountTokens:
    """Pick genes of each cell without replacement: first the expressed ones, then zeros.

    A cell with more than ``length`` expressed genes gets a random subset of them. One with fewer
    gets all, and random measured genes with count 0 until it is full. Genes that were not measured
    are never picked.

    Args:
        counts: Counts in panel order, ``[N, G]``.
        measured: Genes the slide measures, ``[G]``; all when not given.
        length: Genes per cell; the output is as wide as the fullest cell, which is less if
            fewer genes are measured. ``None`` for all measured genes.
        fill_zeros: Pick genes with count 0 as well.
        depth: Total of each cell over all genes of its slide, ``[N]``, also those outside of the
            panel; the sums of ``counts`` when not given.
        seed: Seed of the draw; each cell has its own stream, so the draw depends on the seed and
            the row only.

    Raises:
        ValueError: If ``length`` is not positive, or counts of unmeasured genes are not 0.

    Examples:
        >>> tokens = count_tokens(csr_matrix([[0, 2, 0, 1]]), [True, True, False, True], length=3)
        >>> tokens.genes, tokens.values
        (array([[0, 1, 3]], dtype=int32), array([[0., 2., 1.]], dtype=float32))
    """
    counts = pairs.canonical(counts)
    num_cells, num_genes = counts.shape
    mask = np.ones(num_genes, bool) if measured is None else np.asarray(measured, dtype=bool)
    if mask.shape != (num_genes,):
        raise ValueError(f"Expected 'measured' for {num_genes} genes, got shape {mask.shape}")
    if length is not None and length < 1:
        raise ValueError(f"Expected 'length' of at least 1, got {length}")
    stray = np.unique(counts.indices[(counts.data > 0) & ~mask[counts.indices]])
    if len(stray):
        raise ValueError(
            f"Expected no counts of unmeasured genes, got some in {len(stray)} columns (first: "
            f"{stray[:5].tolist()}). Align the slide with GenePanel.counts"
        )
    total = np.asarray(counts.sum(axis=1) if depth is None else depth, dtype=np.float32).ravel()
    if total.shape != (num_cells,):
        raise ValueError(f"Expected 'depth' of {num_cells} cells, got shape {total.shape}")
    num_expressed = pairs.scan(counts).num_known
    available = int(mask.sum()) if fill_zeros else int(num_expressed.max(initial=0))
    width = available if length is None else min(length, available)
    genes = np.zeros((num_cells, width), dtype=np.int32)
    values = np.zeros((num_cells, width), dtype=np.float32)
    panel = np.flatnonzero(mask) if fill_zeros else np.zeros(0, dtype=np.int64)
    _sample(
        counts.indptr,
        counts.indices,
        counts.data.astype(np.float32, copy=False),
        num_expressed,
        panel,
        np.zeros(num_genes, dtype=np.float32),
        np.uint64(seed % 2**64),
        genes,
        values,
    )
    filled = width if fill_zeros else np.minimum(num_expressed, width)[:, None]
    there = np.broadcast_to(np.arange(width) < filled, (num_cells, width)).copy()
    return CountTokens(genes, values, there, total)


@njit(cache=True, nogil=True)
def _mix(state: np.uint64) -> np.uint64:
    """The output function of splitmix64 (Steele, Lea, Flood 2014)."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def _sample(
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    num_expressed: np.ndarray,
    panel: np.ndarray,
    value: np.ndarray,
    seed: np.uint64,
    genes: np.ndarray,
    values: np.ndarray,
) -> None:
    """Walk the candidates of each row and keep each with the chance that fills the row (Knuth S).

    ``panel`` lists the genes to fill up with, none for expressed genes only; ``value [G]`` is
    scratch space, zero before and after.
    """
    width = genes.shape[1]
    for row in range(genes.shape[0]):
        state = _mix(seed + _INCREMENT * np.uint64(row + 1))
        expressed = num_expressed[row]
        expressed_wanted = min(expressed, width)
        zeros = len(panel) - expressed
        zeros_wanted = width - expressed_wanted if len(panel) else 0
        for j in range(indptr[row], indptr[row + 1]):
            value[indices[j]] = data[j]
        n = 0
        candidates = len(panel) if len(panel) else indptr[row + 1] - indptr[row]
        for i in range(candidates):
            gene = panel[i] if len(panel) else indices[indptr[row] + i]
            if value[gene] > 0:
                left, wanted = expressed, expressed_wanted
                expressed -= 1
            elif len(panel):
                left, wanted = zeros, zeros_wanted
                zeros -= 1
            else:
                continue
            if wanted < left:
                state += _INCREMENT
                chance = (_mix(state) >> np.uint64(11)) * 2.0**-53
                if chance * left >= wanted:
                    continue
            genes[row, n] = gene
            values[row, n] = value[gene]
            n += 1
            if value[gene] > 0:
                expressed_wanted -= 1
            else:
                zeros_wanted -= 1
        for j in range(indptr[row], indptr[row + 1]):
            value[indices[j]] = 0
