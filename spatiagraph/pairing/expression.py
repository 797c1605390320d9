"""Expression as pairs are looked for in: few components."""

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor


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
