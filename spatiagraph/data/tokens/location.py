"""Positions of genes on the genome, as an index for positional encodings."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def location_index(
    chromosome: Sequence[str], start: ArrayLike, *, max_gap: int = 10_000
) -> NDArray[np.int64]:
    """Index of each gene along the genome, shared by close neighbours.

    Genes are sorted by chromosome (1, 2, …, 22, X, Y, …) and start; the index grows by one where
    the next gene starts more than ``max_gap`` base pairs away, or on another chromosome.

    Args:
        chromosome: Chromosome of each gene, ``[G]``.
        start: First base of each gene, ``[G]``.
        max_gap: Largest distance between starts of genes with one index, in base pairs.

    Returns:
        Index ``[G]``, from 0.

    Raises:
        ValueError: If a gene has no chromosome or start.

    Examples:
        >>> location_index(["2", "10", "2", "2"], [5_000, 100, 40_000, 12_000])
        array([0, 2, 1, 0])
    """
    position = np.asarray(start, dtype=np.float64)
    names = [str(c).removeprefix("chr") for c in chromosome]
    if position.shape != (len(names),):
        raise ValueError(
            f"Expected one 'start' per gene, got shape {position.shape} for {len(names)} genes"
        )
    bad = np.flatnonzero(~np.isfinite(position) | np.isin(names, ["", "nan", "None"]))
    if len(bad):
        raise ValueError(
            f"Expected a chromosome and a start for every gene, got none for {len(bad)} (first: "
            f"places {bad[:5].tolist()}). Leave these genes out"
        )
    different = sorted(set(names), key=lambda c: (not c.isdigit(), int(c) if c.isdigit() else 0, c))
    rank = {name: i for i, name in enumerate(different)}
    place = np.fromiter((rank[c] for c in names), np.int64, len(names))
    order = np.lexsort((position, place))
    far = (np.diff(place[order]) != 0) | (np.diff(position[order]) > max_gap)
    index = np.empty(len(names), dtype=np.int64)
    index[order] = np.concatenate([[0], np.cumsum(far)])[: len(names)]
    return index
