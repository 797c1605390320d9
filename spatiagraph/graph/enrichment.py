"""Enrichment of groups in each other's neighbourhood, against labels that are shuffled."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spatiagraph.graph.edges import plain_edges


def neighbor_enrichment(
    edge_index: Tensor, groups: ArrayLike, *, num_permutations: int = 200, seed: int = 0
) -> NDArray[np.float64]:
    r"""Measure how much more often groups are neighbours than they would be by chance.

    The statistic of ``squidpy.gr.nhood_enrichment``: with :math:`n_{ab}` edges from group
    :math:`a` to group :math:`b`, :math:`z_{ab} = (n_{ab} - \mu_{ab}) / \sigma_{ab}`, mean and
    standard deviation over labels that are shuffled among the cells.

    Args:
        edge_index: Edges between cells, ``[2, E]``.
        groups: Group of each cell ``[N]``, integers from 0; -1 for cells that have none, which are
            left out.
        num_permutations: How often labels are shuffled.
        seed: Seed of the shuffles.

    Returns:
        ``[K, K]``; 0 where shuffles do not differ.

    Raises:
        ValueError: No cell has a group.

    Examples:
        >>> import torch
        >>> line = torch.tensor([[0, 1, 2, 3, 4, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0, 1, 2, 3, 4]])
        >>> z = neighbor_enrichment(line, [0, 0, 0, 1, 1, 1])
        >>> bool(z[0, 0] > 1 and z[0, 1] < -1)
        True
    """
    codes = np.asarray(groups, dtype=np.int64)  # pandas counts categories in a byte
    if not (codes >= 0).any():
        raise ValueError("Expected cells with a group, got none")
    num = int(codes.max()) + 1
    source, target = (end.numpy() for end in plain_edges(edge_index))
    known = np.flatnonzero(codes >= 0)
    place = np.full(len(codes), -1)
    place[known] = np.arange(len(known))
    kept = (place[source] >= 0) & (place[target] >= 0)
    source, target, labels = place[source[kept]], place[target[kept]], codes[known]

    def pairs(of: NDArray[np.integer]) -> NDArray[np.float64]:
        code = of[source] * num + of[target]
        return np.bincount(code, minlength=num * num).reshape(num, num).astype(np.float64)

    rng = np.random.default_rng(seed)
    shuffled = np.stack([pairs(rng.permutation(labels)) for _ in range(num_permutations)])
    spread = shuffled.std(axis=0)
    away = pairs(labels) - shuffled.mean(axis=0)
    return np.divide(away, spread, out=np.zeros_like(away), where=spread > 0)
