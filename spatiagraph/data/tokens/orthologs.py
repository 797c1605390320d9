"""Counts of one species on the genes of another."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix


class Orthologs(NamedTuple):
    """Counts on the genes of the other species.

    Attributes:
        counts: Counts ``[N, G']`` as CSR.
        gene_ids: Genes of the other species, ``[G']``, in order of first appearance.
        dropped: Genes without counterpart.
        dropped_share: Their share of all counts.
    """

    counts: csr_matrix
    gene_ids: list[str]
    dropped: list[str]
    dropped_share: float


def merge_orthologs(
    counts: csr_matrix, gene_ids: Sequence[str], orthologs: Mapping[str, str]
) -> Orthologs:
    """Add up the columns that map to the same gene, and drop those that map to none.

    Args:
        counts: Counts, ``[N, G]``.
        gene_ids: Genes of the columns, ``[G]``.
        orthologs: Gene → gene of the other species.

    Raises:
        ValueError: If there is not one id per column, or no gene has a counterpart.

    Examples:
        >>> human = merge_orthologs(
        ...     csr_matrix([[1, 2, 5]]), ["a", "b", "c"], {"a": "A", "b": "A"}
        ... )
        >>> human.counts.toarray(), human.gene_ids, human.dropped
        (array([[3]]), ['A'], ['c'])
    """
    if len(gene_ids) != counts.shape[1]:
        raise ValueError(
            f"Expected one of 'gene_ids' per column, got {len(gene_ids)} for {counts.shape[1]}"
        )
    mapped = [orthologs.get(g) for g in gene_ids]
    names = list(dict.fromkeys(m for m in mapped if m is not None))
    if not names:
        raise ValueError(
            f"Expected genes of the ortholog table, got none of its {len(orthologs)} in "
            f"{', '.join(map(str, gene_ids[:5]))}, …. Same kind of id, and no version suffix?"
        )
    place = {name: i for i, name in enumerate(names)}
    known = np.flatnonzero([m is not None for m in mapped])
    column = np.array([place[m] for m in mapped if m is not None])
    move = csr_matrix(
        (np.ones(len(known), dtype=counts.dtype), (known, column)),
        shape=(counts.shape[1], len(names)),
    )
    merged = csr_matrix(counts @ move)
    merged.sort_indices()
    total = float(counts.sum())
    share = 1 - float(merged.sum()) / total if total else 0.0
    dropped = [g for g, m in zip(gene_ids, mapped, strict=True) if m is None]
    return Orthologs(merged, names, dropped, share)
