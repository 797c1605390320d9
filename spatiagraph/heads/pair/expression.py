"""Expression as pairs are looked for in: per cell, on a logarithmic scale, few components."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

DEPTH = 1e4
"""Total that every cell is scaled to."""


def log_normalize(counts: csr_matrix, depth: NDArray[np.floating] | None = None) -> csr_matrix:
    r"""Expression of each cell as :math:`\ln(1 + 10^4 x / \sum x)`.

    Args:
        counts: Counts, ``[N, G]``.
        depth: Total of each cell, ``[N]``, if not that of these genes.

    Returns:
        ``[N, G]`` float64; a cell without counts stays 0.

    Examples:
        >>> log_normalize(csr_matrix([[0.0, 3.0, 1.0]])).toarray().round(3)
        array([[0.   , 8.923, 7.824]])
    """
    if depth is None:
        depth = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    scale = DEPTH / np.where(depth > 0, depth, 1).astype(np.float64)
    values = np.log1p(counts.data * np.repeat(scale, np.diff(counts.indptr)))
    return csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)


def joint_components(
    control: csr_matrix, target: csr_matrix, num_components: int
) -> tuple[Tensor, Tensor]:
    """Principal components of two groups of cells, taken together.

    Nothing is projected where there are no more genes than components: distances would be the same.

    Args:
        control: ``[N, G]``.
        target: ``[M, G]``.
        num_components: How many at most.

    Returns:
        ``[N, P]`` and ``[M, P]`` float64.
    """
    both = torch.from_numpy(np.vstack([side.toarray() for side in (control, target)])).double()
    num_cells, num_genes = both.shape
    if num_genes > num_components:
        both = both - both.mean(0)
        if num_genes <= num_cells:
            axes = torch.linalg.eigh(both.T @ both).eigenvectors  # the largest come last
            both = both @ axes[:, -num_components:]
        else:
            energy, axes = torch.linalg.eigh(both @ both.T)
            both = (axes * energy.clamp(min=0).sqrt())[:, -num_components:]
    first, second = both.split([control.shape[0], target.shape[0]])
    return first, second
