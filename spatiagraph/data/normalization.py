"""Counts of cells on one depth and a logarithmic scale."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix


def log_normalize(
    counts: csr_matrix,
    target: float = 1e4,
    *,
    depth: ArrayLike | None = None,
    expression: str = "counts",
) -> csr_matrix:
    r"""Expression of each cell as :math:`\ln(1 + t \, x / \sum x)`.

    Args:
        counts: Counts or normalised expression, ``[N, G]``.
        target: Depth that cells are brought to, :math:`t`.
        depth: Total of each cell, ``[N]``, if not that of these genes.
        expression: ``"normalized"`` values are not brought to a depth again.

    Returns:
        ``[N, G]`` float64; a cell without counts stays 0.

    Raises:
        ValueError: ``expression`` is neither ``"counts"`` nor ``"normalized"``, or ``target`` is
            not positive.

    Examples:
        >>> log_normalize(csr_matrix([[0.0, 3.0, 1.0]])).toarray().round(3)
        array([[0.   , 8.923, 7.824]])
    """
    if expression not in ("counts", "normalized"):
        raise ValueError(f'Expected expression to be "counts" or "normalized", got {expression!r}')
    if not (np.isfinite(target) and target > 0):
        raise ValueError(f"Expected 'target' to be positive, got {target}")
    values = counts.data.astype(np.float64)
    if expression == "counts":
        total = np.asarray(counts.sum(axis=1, dtype=np.float64) if depth is None else depth)
        total = total.astype(np.float64).ravel()
        scale = np.divide(target, total, out=np.zeros_like(total), where=total > 0)
        values = values * np.repeat(scale, np.diff(counts.indptr))
    return csr_matrix((np.log1p(values), counts.indices, counts.indptr), shape=counts.shape)
