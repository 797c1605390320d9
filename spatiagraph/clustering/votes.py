"""Votes over partitions of the same cells, in time and memory that grow with their number."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_matrix, hstack

_MAX_ROUNDS = 6


def agreement(partitions: ArrayLike) -> NDArray[np.float64]:
    """Adjusted Rand index of every pair of partitions.

    All contingency tables come from one product of the stacked one-hots.

    Args:
        partitions: Cluster of each cell in each of them, ``[M, N]`` integers from 0.

    Returns:
        ``[M, M]``, symmetric, 1 on the diagonal.

    Examples:
        >>> agreement([[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]]).round(2).tolist()
        [[1.0, 1.0, -0.5], [1.0, 1.0, -0.5], [-0.5, -0.5, 1.0]]
    """
    labels = np.asarray(partitions)
    num, num_cells = labels.shape
    sizes = labels.max(axis=1) + 1
    stacked = hstack([_one_hot(row, size) for row, size in zip(labels, sizes, strict=True)]).tocsr()
    table = np.asarray((stacked.T @ stacked).todense(), dtype=np.float64)
    start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    pairs = table * (table - 1) / 2
    together = np.add.reduceat(np.add.reduceat(pairs, start, axis=0), start, axis=1)
    own = np.diag(together)  # pairs of cells that a partition puts together
    expected = np.outer(own, own) / max(num_cells * (num_cells - 1) / 2, 1)
    possible = (own[:, None] + own[None, :]) / 2 - expected
    result = np.divide(
        together - expected, possible, out=np.ones((num, num)), where=np.abs(possible) > 1e-9
    )
    np.fill_diagonal(result, 1.0)
    return result


def vote(partitions: ArrayLike, num_clusters: int) -> NDArray[np.float64]:
    """Share of the partitions that put each cell into each cluster of their consensus.

    Begins with the partition that agrees most with the others. In each round the clusters of every
    partition are matched one to one to those of the votes so far, by the cells they share
    (Hungarian assignment), and the votes are counted anew, until nothing changes.

    Args:
        partitions: Cluster of each cell in each of them, ``[M, N]`` integers in ``[0, K)``.
        num_clusters: ``K``.

    Returns:
        ``[N, K]``, rows sum to 1.

    Examples:
        >>> vote([[0, 0, 1], [1, 1, 0], [0, 1, 1]], 2).round(2).tolist()
        [[1.0, 0.0], [0.67, 0.33], [0.0, 1.0]]
    """
    labels = np.asarray(partitions)
    central = agreement(labels).sum(axis=1).argmax()
    members = [_one_hot(row, num_clusters) for row in labels]
    votes = np.asarray(members[central].todense(), dtype=np.float64)
    for _ in range(_MAX_ROUNDS):
        counted = np.zeros_like(votes)
        for member in members:
            rows, columns = linear_sum_assignment(-(member.T @ votes))
            renamed = csr_matrix((np.ones(len(rows)), (rows, columns)), (num_clusters,) * 2)
            counted += (member @ renamed).toarray()
        counted /= len(members)
        if np.array_equal(counted, votes):
            break
        votes = counted
    return votes


def _one_hot(labels: NDArray[np.integer], size: int) -> csr_matrix:
    """One-hot rows, ``[N, size]``."""
    num = len(labels)
    return csr_matrix((np.ones(num), labels, np.arange(num + 1)), shape=(num, size))
