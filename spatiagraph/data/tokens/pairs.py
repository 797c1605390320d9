"""Order of (gene, count) pairs, shared by all cells.

Counts are small integers, so a slide has few different (gene, count) pairs. They are ordered once;
a cell is then sorted by setting one bit per gene and reading the bits in order, which costs a few
nanoseconds per gene and knows no ties.
"""

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data import sparse
from spatiagraph.data.sparse import check_compressed

MAX_PAIRS = 1 << 24
"""Beyond so many pairs (a count of millions) sorting each cell is cheaper than the table."""


class Scan(NamedTuple):
    """Summary of one pass over all counts.

    Attributes:
        largest: Largest count of each gene, ``[G]``.
        num_known: Expressed genes of each cell that are in the vocabulary, ``[N]``.
        num_unknown: Expressed genes of each cell that are not, ``[N]``.
        integral: All counts are integers.
    """

    largest: NDArray[np.int64]
    num_known: NDArray[np.int64]
    num_unknown: NDArray[np.int64]
    integral: bool


def canonical(counts: csr_matrix) -> csr_matrix:
    """The same matrix with each gene once per cell; refuses what is not a count.

    Raises:
        ValueError: If a value is negative, NaN or infinite.
    """
    counts = counts if isinstance(counts, csr_matrix) else csr_matrix(counts)
    check_compressed(counts, "counts")  # the kernels below follow its indices
    counts = sparse.canonical(counts)
    data = counts.data
    if data.size and not (data.min() >= 0 and np.isfinite(data.max())):
        bad = np.flatnonzero(~(np.isfinite(data) & (data >= 0)))
        rows = np.unique(np.searchsorted(counts.indptr, bad, side="right") - 1)
        raise ValueError(
            f"Expected non-negative finite counts, got others in {len(rows)} cells (first: "
            f"{rows[:5].tolist()})"
        )
    return counts


@njit(cache=True, nogil=True)
def _scan(
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    known: np.ndarray,
    largest: np.ndarray,
    num_known: np.ndarray,
    num_unknown: np.ndarray,
) -> bool:
    integral = True
    for row in range(len(indptr) - 1):
        expressed, inside = 0, 0
        for j in range(indptr[row], indptr[row + 1]):
            if data[j] > 0:
                gene = indices[j]
                value = int(data[j])
                integral &= value == data[j]
                largest[gene] = max(largest[gene], value)
                expressed += 1
                inside += known[gene]
        num_known[row], num_unknown[row] = inside, expressed - inside
    return integral


def scan(counts: csr_matrix, known: NDArray[np.bool_] | None = None) -> Scan:
    """Look at all counts once.

    Args:
        counts: Counts, ``[N, G]``.
        known: Genes of the vocabulary, ``[G]``; all when not given.
    """
    num_cells, num_genes = counts.shape
    known = np.ones(num_genes, dtype=bool) if known is None else known
    if known.shape != (num_genes,):
        raise ValueError(f"Expected 'known' for {num_genes} genes, got shape {known.shape}")
    largest = np.zeros(num_genes, dtype=np.int64)
    num_known, num_unknown = np.zeros((2, num_cells), dtype=np.int64)
    integral = _scan(
        counts.indptr, counts.indices, counts.data, known, largest, num_known, num_unknown
    )
    return Scan(largest, num_known, num_unknown, bool(integral))


def _find_lowest(typing_context: Any, bits: Any) -> Any:
    """Place of the lowest set bit, by the processor's own instruction."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), codegen


_lowest: Any = intrinsic(_find_lowest)  # called without the context from compiled code


@njit(cache=True, nogil=True)
def write_sorted(
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    start: np.ndarray,
    rank: np.ndarray,
    token: np.ndarray,
    first: int,
    ptr: np.ndarray,
    ids: np.ndarray,
) -> None:
    """Write the tokens of each row in the order of their pairs, as many as fit.

    ``start[g] + count - 1`` is the place of a pair in ``rank``; ``token[r]`` is the token of rank
    ``r``; row ``i`` has ``ids[ptr[i] : ptr[i + 1]]``, whose ``first`` tokens are there already.
    """
    one, six, low = np.uint64(1), np.uint64(6), np.uint64(63)
    num_words = len(rank) // 64 + 1
    words = np.zeros(num_words, dtype=np.uint64)
    used = np.zeros(num_words // 64 + 1, dtype=np.uint64)  # which words hold a bit
    for row in range(len(ptr) - 1):
        for j in range(indptr[row], indptr[row + 1]):
            gene = indices[j]
            if start[gene] < 0 or data[j] <= 0:
                continue
            r = np.uint64(rank[start[gene] + int(data[j]) - 1])
            w = r >> six
            words[w] |= one << (r & low)
            used[w >> six] |= one << (w & low)
        n, end = ptr[row] + first, ptr[row + 1]
        for u in range(len(used)):
            top = used[u]
            used[u] = 0
            while top:
                w = (np.uint64(u) << six) + _lowest(top)
                top &= top - one
                bits = words[w]
                words[w] = 0
                while bits and n < end:
                    ids[n] = token[(w << six) + _lowest(bits)]
                    bits &= bits - one
                    n += 1


@njit(cache=True, nogil=True)
def write_bins(
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    start: np.ndarray,
    group: np.ndarray,
    num_groups: int,
    num_edges: int,
    out: np.ndarray,
) -> None:
    """Write the quantile bin of each non-zero, given the group of equal values of each pair."""
    one, six, low = np.uint64(1), np.uint64(6), np.uint64(63)
    num_words = num_groups // 64 + 1
    words = np.zeros(num_words, dtype=np.uint64)
    used = np.zeros(num_words // 64 + 1, dtype=np.uint64)
    number = np.zeros(num_groups, dtype=np.int64)  # how often a value occurs in the row
    bin_of = np.zeros(num_groups, dtype=np.int64)
    for row in range(len(indptr) - 1):
        total = 0
        for j in range(indptr[row], indptr[row + 1]):
            if data[j] <= 0:
                continue
            g = np.uint64(group[start[indices[j]] + int(data[j]) - 1])
            number[g] += 1
            total += 1
            w = g >> six
            words[w] |= one << (g & low)
            used[w >> six] |= one << (w & low)
        below = 0
        for u in range(len(used)):
            top = used[u]
            used[u] = 0
            while top:
                w = (np.uint64(u) << six) + _lowest(top)
                top &= top - one
                bits = words[w]
                words[w] = 0
                while bits:
                    g = (w << six) + _lowest(bits)
                    bits &= bits - one
                    bin_of[g] = quantile_bin(below, below + number[g] - 1, total, num_edges)
                    below += number[g]
                    number[g] = 0
        for j in range(indptr[row], indptr[row + 1]):
            if data[j] > 0:
                out[j] = bin_of[group[start[indices[j]] + int(data[j]) - 1]]


@njit(cache=True, nogil=True)
def quantile_bin(first: int, last: int, total: int, num_edges: int) -> int:
    """Lowest quantile bin of the value at sorted ranks ``first`` to ``last`` of ``total``.

    Edge k lies at place k (total - 1) / (num_edges - 1), so which edges are below a value, or
    equal to it, follows from places alone: exactly, and for any scale of the values.
    """
    steps, span = num_edges - 1, total - 1
    below = -(-(steps * first) // span) if span else 0  # edges smaller than the value
    return below + 1 if below * span <= steps * last else below
