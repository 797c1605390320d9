"""Cells as lists of genes, most expressed relative to their usual level first."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.tokens import pairs


class RaggedTokens(NamedTuple):
    """Genes of each cell in order, one cell after the other.

    Attributes:
        ids: Token ids, ``[T]`` int32; those of cell ``i`` are ``ids[ptr[i] : ptr[i + 1]]``.
        ptr: First token of each cell, ``[N + 1]``, ending with ``T``.
        unknown: Expressed genes of each cell that are not in the vocabulary, ``[N]``.
        empty: Cells without any gene of the vocabulary, ``[N]``.
    """

    ids: NDArray[np.int32]
    ptr: NDArray[np.int64]
    unknown: NDArray[np.int64]
    empty: NDArray[np.bool_]


class RankTokens(NamedTuple):
    """Genes of each cell in order, padded on the right.

    Attributes:
        ids: Token ids, ``[N, L]`` int32; L is the longest cell's.
        length: Tokens of each cell that are not padding, ``[N]``.
        unknown: Expressed genes of each cell that are not in the vocabulary, ``[N]``.
        empty: Cells without any gene of the vocabulary, ``[N]``.
    """

    ids: NDArray[np.int32]
    length: NDArray[np.int64]
    unknown: NDArray[np.int64]
    empty: NDArray[np.bool_]


def rank_tokens(
    counts: csr_matrix,
    tokens: ArrayLike,
    medians: ArrayLike | None = None,
    *,
    ties: Literal["vocabulary", "count"] = "vocabulary",
    max_len: int = 2048,
    cls: int | None = None,
    pad: int = 0,
    force: bool = False,
    max_pairs: int = pairs.MAX_PAIRS,
) -> RankTokens:
    r"""Genes of each cell by :math:`x_{cg} / m_g`, largest first.

    With :math:`m_g` the usual level of a gene, this is the rank encoding of `"Transfer learning
    enables predictions in network biology" <https://doi.org/10.1038/s41586-023-06139-9>`_. The
    total of a cell is common to its genes and cannot change their order; it is left out, so that
    equal ratios stay exactly equal.

    Args:
        counts: Raw counts, ``[N, G]``.
        tokens: Token id of each gene, ``[G]``; negative for a gene outside of the vocabulary.
        medians: Usual level of each gene, ``[G]``, as from
            :func:`~spatiagraph.data.tokens.fit_medians`; 1 when not given.
        ties: What decides between equal ratios: ``"vocabulary"``, the lower token id first
            (SToFM); ``"count"``, the larger count, then the lower token id (SpatialFormer).
        max_len: Most tokens of a cell, ``cls`` included; the least expressed genes are cut.
        cls: Token put first in every cell.
        pad: Token that fills up short cells.
        force: Accept values that are not integers; slower.
        max_pairs: Largest table of (gene, count) pairs, ordered once for all cells; beyond it each
            cell is sorted. Changes no result.

    Raises:
        ValueError: If counts are not integers, or tokens or medians do not fit the genes.

    Examples:
        >>> rank_tokens(csr_matrix([[4, 0, 6, 10]]), [5, 6, 7, 8], [2, 1, 1, 5], cls=1).ids
        array([[1, 7, 5, 8]], dtype=int32)
    """
    found, length, slots = _ranked(
        counts, tokens, medians, ties, max_len, cls, force, max_pairs, pad
    )
    ids = slots.reshape(len(length), len(slots) // max(len(length), 1))
    return RankTokens(ids, length, found.num_unknown, found.num_known == 0)


def ragged_rank_tokens(
    counts: csr_matrix,
    tokens: ArrayLike,
    medians: ArrayLike | None = None,
    *,
    ties: Literal["vocabulary", "count"] = "vocabulary",
    max_len: int = 2048,
    cls: int | None = None,
    force: bool = False,
    max_pairs: int = pairs.MAX_PAIRS,
) -> RaggedTokens:
    """The tokens of :func:`rank_tokens` without padding; arguments as there.

    Raises:
        ValueError: If counts are not integers, or tokens or medians do not fit the genes.

    Examples:
        >>> ragged_rank_tokens(csr_matrix([[4, 0, 6], [0, 1, 0]]), [5, 6, 7], cls=1)[:2]
        (array([1, 7, 5, 1, 6], dtype=int32), array([0, 3, 5]))
    """
    found, length, ids = _ranked(
        counts, tokens, medians, ties, max_len, cls, force, max_pairs, None
    )
    ptr = np.concatenate([[0], length.cumsum()])
    return RaggedTokens(ids, ptr, found.num_unknown, found.num_known == 0)


def _ranked(
    counts: csr_matrix,
    tokens: ArrayLike,
    medians: ArrayLike | None,
    ties: str,
    max_len: int,
    cls: int | None,
    force: bool,
    max_pairs: int,
    pad: int | None,
) -> tuple[pairs.Scan, NDArray[np.int64], NDArray[np.int32]]:
    """Scan of the counts, number of tokens of each cell, and tokens: padded, or ragged without."""
    counts = pairs.canonical(counts)
    token = np.asarray(tokens, dtype=np.int64)
    median = np.ones(len(token)) if medians is None else np.asarray(medians, dtype=np.float64)
    _check(counts, token, median, ties, max_len, cls)
    found = pairs.scan(counts, token >= 0)
    if not (found.integral or force):
        raise ValueError(
            "Expected raw counts, got values that are not integers. Pass counts, or force=True to "
            "rank the values as they are"
        )
    first = int(cls is not None)
    length = np.minimum(first + found.num_known, max_len)
    if pad is None:
        ptr = np.concatenate([[0], length.cumsum()])
    else:
        ptr = np.arange(len(length) + 1) * int(length.max(initial=first))
    if pad:
        ids = np.full(ptr[-1], pad, dtype=np.int32)
    else:  # ragged tokens are all written, and zeros cost nothing until then
        ids = (np.empty if pad is None else np.zeros)(ptr[-1], dtype=np.int32)
    if cls is not None:
        ids[ptr[:-1]] = cls
    largest = np.where(token >= 0, found.largest, 0)
    if found.integral and largest.sum(dtype=float) <= max_pairs:
        _rank_by_table(counts, largest, token, median, ties, first, ptr, ids)
    else:
        _rank_by_sort(counts, token, median, ties, first, ptr, ids)
    return found, length, ids


def _rank_by_table(
    counts: csr_matrix,
    largest: NDArray[np.int64],
    token: NDArray[np.int64],
    median: NDArray[np.float64],
    ties: str,
    first: int,
    ptr: NDArray[np.int64],
    ids: NDArray[np.int32],
) -> None:
    gene = np.repeat(np.arange(len(largest)), largest)
    start = np.cumsum(largest) - largest
    count = np.arange(len(gene)) - start[gene] + 1
    order = _order(token[gene], count, median[gene], ties)
    rank = np.empty(len(order), dtype=np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    pairs.write_sorted(
        counts.indptr,
        counts.indices,
        counts.data,
        np.where(token >= 0, start, -1),
        rank,
        token[gene][order].astype(np.int32),
        first,
        ptr,
        ids,
    )


def _rank_by_sort(
    counts: csr_matrix,
    token: NDArray[np.int64],
    median: NDArray[np.float64],
    ties: str,
    first: int,
    ptr: NDArray[np.int64],
    ids: NDArray[np.int32],
) -> None:
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    keep = np.flatnonzero((counts.data > 0) & (token[counts.indices] >= 0))
    gene, row, value = counts.indices[keep], row[keep], counts.data[keep].astype(np.float64)
    order = _order(token[gene], value, median[gene], ties)
    order = order[np.argsort(row[order], kind="stable")]
    row = row[order]
    place = ptr[row] + first + np.arange(len(row)) - np.searchsorted(row, row)
    fits = place < ptr[row + 1]
    ids[place[fits]] = token[gene][order][fits]


def _order(
    token: NDArray[np.int64],
    count: NDArray[np.number],
    median: NDArray[np.float64],
    ties: str,
) -> NDArray[np.int64]:
    ratio = -(count / median)
    return np.lexsort((token, ratio) if ties == "vocabulary" else (token, -count, ratio))


def _check(
    counts: csr_matrix,
    token: NDArray[np.int64],
    median: NDArray[np.float64],
    ties: str,
    max_len: int,
    cls: int | None,
) -> None:
    num_genes = counts.shape[1]
    if token.shape != (num_genes,) or median.shape != (num_genes,):
        raise ValueError(
            f"Expected one token and one median for each of {num_genes} genes, got {token.shape} "
            f"and {median.shape}"
        )
    used = token[token >= 0]
    value, number = np.unique(used, return_counts=True)
    if (number > 1).any():
        raise ValueError(
            f"Expected a different token for each gene, got {int((number > 1).sum())} tokens more "
            f"than once (first: {value[number > 1][:5].tolist()}). Merge the genes first, as with "
            "merge_orthologs"
        )
    if not (np.isfinite(median) & (median > 0)).all():
        bad = np.flatnonzero(~(np.isfinite(median) & (median > 0)))
        raise ValueError(
            f"Expected positive medians, got others for {len(bad)} genes (first: columns "
            f"{bad[:5].tolist()}). A gene never seen has median 1"
        )
    if ties not in ("vocabulary", "count"):
        raise ValueError(f'Expected ties to be "vocabulary" or "count", got {ties!r}')
    if max_len < 1 + int(cls is not None):
        raise ValueError(f"Expected 'max_len' to leave room for a gene, got {max_len}")
