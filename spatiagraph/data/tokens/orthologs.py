"""Counts of one species on the genes of another."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
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


def read_orthologs(path: str | os.PathLike[str]) -> dict[str, str]:
    """Orthologues of a table: ids and symbols of one species → symbol, or id, of another.

    Of several counterparts of a gene the first one-to-one is taken, then the most confident.

    Args:
        path: Table (csv, tsv, parquet, gzipped or not) as BioMart exports it, with ``Gene stable
            ID`` or ``Gene name``, and ``… gene name`` or ``… gene stable ID`` of the other species;
            or a table of two columns with a header, gene and counterpart.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Its columns are others, or no gene has a counterpart, or there
            are several other species.
    """
    from spatiagraph.data.read.tables import read_table, table_columns  # needs what reads slides

    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f"Expected a table of orthologues at {file}, found no such file")
    have = table_columns(file)
    keys = [str(c) for c in ("Gene stable ID", "Gene name") if c in have]
    values = [c for end in (" gene name", " gene stable ID") for c in have if c.endswith(end)]
    species = {c.removesuffix(" gene name").removesuffix(" gene stable ID") for c in values}
    if len(species) > 1:
        raise ValueError(
            f"Expected orthologues of one other species in {file.name}, got "
            f"{', '.join(sorted(species))}: leave the columns of the others out"
        )
    if not values and len(have) == 2:
        keys, values = [have[0]], [have[1]]
    if not keys or not values:
        raise ValueError(
            f"Expected columns Gene stable ID or Gene name, and '… gene name' or '… gene stable "
            f"ID', or two columns, in {file.name}, got {', '.join(have)}"
        )
    kind = [c for c in have if c.endswith("homology type")][:1]
    trust = [c for c in have if "orthology confidence" in c][:1]
    names = [*keys, *values, *kind]
    table = read_table(file, [*names, *trust], text=names)
    for column in kind:
        table[column] = table[column] != "ortholog_one2one"
    if kind or trust:
        ascending = [True] * len(kind) + [False] * len(trust)
        table = table.sort_values([*kind, *trust], ascending=ascending, kind="stable")
    other = table[values].bfill(axis=1).iloc[:, 0]
    found: dict[str, str] = {}
    for key in keys:
        both = table[key].notna() & other.notna()
        for gene, counterpart in zip(table.loc[both, key], other[both], strict=True):
            found.setdefault(str(gene), str(counterpart))
    if not found:
        raise ValueError(f"Expected genes with a counterpart in {file.name}, got none")
    return found
