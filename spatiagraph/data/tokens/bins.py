"""Expression of each cell as quantile bins of its own non-zero values."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.tokens import pairs


def bin_tokens(
    counts: csr_matrix,
    num_bins: int = 51,
    *,
    gene_scale: ArrayLike | None = None,
    max_pairs: int = pairs.MAX_PAIRS,
) -> csr_matrix:
    """Quantile bin of each value among the non-zero values of its cell.

    Zeros are bin 0. The edges of the other bins are the quantiles of the cell's non-zero values at
    ``num_bins - 1`` equally spaced probabilities, as in `"scGPT"
    <https://doi.org/10.1038/s41592-024-02201-0>`_; a value that several bins could claim takes the
    lowest of them, so that a cell always gets the same bins. Multiplying a cell by a constant
    changes nothing, so values need no scaling per cell or slide.

    Args:
        counts: Counts or normalised expression, ``[N, G]``.
        num_bins: Number of bins, that of zeros included.
        gene_scale: Divide each gene by this first, ``[G]``, such as its non-zero mean.
        max_pairs: Largest table of (gene, count) pairs, ordered once for all cells; beyond it each
            cell is sorted. Changes no result.

    Returns:
        Bins ``[N, G]`` as CSR int16, 1 to ``num_bins - 1`` where ``counts`` is not 0.

    Raises:
        ValueError: If values are negative or not finite, or there are fewer than 3 bins.

    Examples:
        >>> bin_tokens(csr_matrix([[0, 1, 2, 3, 3]]), num_bins=4).toarray()
        array([[0, 1, 1, 3, 3]], dtype=int16)
    """
    if not 3 <= num_bins < 1 << 15:
        raise ValueError(f"Expected 'num_bins' from 3 to 32767, got {num_bins}")
    counts = pairs.canonical(counts)
    scale = None if gene_scale is None else np.asarray(gene_scale, dtype=np.float64)
    if scale is not None and (scale.shape != (counts.shape[1],) or not (scale > 0).all()):
        raise ValueError(
            f"Expected a positive 'gene_scale' for each of {counts.shape[1]} genes, got shape "
            f"{scale.shape} with minimum {scale.min(initial=np.inf):.3g}"
        )
    found = pairs.scan(counts)
    largest = found.largest
    if scale is None:  # all genes share one scale, and with it one row of the table
        largest = np.array([largest.max(initial=0)])
    bins = np.zeros(counts.nnz, dtype=np.int16)
    if found.integral and largest.sum(dtype=float) <= max_pairs:
        _bin_by_table(counts, largest, scale, num_bins - 1, bins)
    else:
        _bin_by_sort(counts, scale, num_bins - 1, bins)
    return csr_matrix((bins, counts.indices, counts.indptr), shape=counts.shape)


def _bin_by_table(
    counts: csr_matrix,
    largest: NDArray[np.int64],
    scale: NDArray[np.float64] | None,
    num_edges: int,
    bins: NDArray[np.int16],
) -> None:
    start = np.cumsum(largest) - largest
    row = np.repeat(np.arange(len(largest)), largest)
    value = np.arange(len(row)) - start[row] + 1.0
    if scale is None:
        start = np.zeros(counts.shape[1], dtype=np.int64)
    else:
        value /= scale[row]
    different, group = np.unique(value, return_inverse=True)
    pairs.write_bins(
        counts.indptr,
        counts.indices,
        counts.data,
        start,
        group.astype(np.int64),
        len(different),
        num_edges,
        bins,
    )


def _bin_by_sort(
    counts: csr_matrix,
    scale: NDArray[np.float64] | None,
    num_edges: int,
    bins: NDArray[np.int16],
) -> None:
    keep = np.flatnonzero(counts.data > 0)
    if not len(keep):
        return
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))[keep]
    value = counts.data[keep].astype(np.float64)
    if scale is not None:
        value /= scale[counts.indices[keep]]
    order = np.lexsort((value, row))
    row, value = row[order], value[order]
    new = np.concatenate([[True], (np.diff(row) > 0) | (np.diff(value) > 0)])
    run = np.cumsum(new) - 1  # run of equal values within a cell
    cell_start = np.searchsorted(row, row)
    total = np.searchsorted(row, row, side="right") - cell_start
    first = np.flatnonzero(new)[run] - cell_start
    last = first + np.bincount(run)[run] - 1
    # the rule of pairs.quantile_bin, for all values at once
    steps, span = num_edges - 1, total - 1
    below = -(-(steps * first) // np.maximum(span, 1))
    bins[keep[order]] = below + (below * span <= steps * last)
