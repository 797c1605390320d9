"""Head that says from how alike two cells are whether they are neighbours."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor, nn

from spatiagraph.data.tokens import CellSequences
from spatiagraph.nn.config import Configurable

_SPREAD = 4.0  # log-odds by which weights of genes differ, before anything is seen


class CellSimilarity(Configurable):
    r"""Log-odds that two cells are neighbours, from the genes they share.

    A cell is a profile :math:`\mathbf{u}` in which its gene of rank :math:`r` has
    :math:`1 / \log_2(r + 2)`, less the mean profile, of length 1:

    .. math::
        z = \sum_g w_g u_g v_g + b .

    With equal weights this is the cosine of expression on a scale of log-odds, which a model that
    is to tell more of two cells has to beat. :meth:`initialize` starts from a logistic regression
    that is held to equal weights.

    Args:
        first_gene: Token id of the first gene.
        num_genes: Genes, whose ids follow each other.

    Shapes:
        - **sequences**: pairs of cells, see :class:`~spatiagraph.data.tokens.CellSequences`
        - **output**: log-odds, ``[B]``
    """

    mean: Tensor

    def __init__(self, first_gene: int, num_genes: int):
        super().__init__()
        self.first_gene = first_gene
        self.weight = nn.Parameter(torch.zeros(num_genes))
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.zeros(num_genes))

    def profiles(self, sequences: CellSequences) -> Tensor:
        """Profile of each cell before the mean is taken off, ``[S * B, G]``, first cells first."""
        ids, real = sequences.take_genes(sequences.tokens)
        rank = torch.arange(ids.size(1), device=ids.device)
        value = (1 / torch.log2(rank + 2.0)).expand(ids.shape)
        gene, num_genes = ids - self.first_gene, len(self.mean)
        real = real & (gene >= 0) & (gene < num_genes)  # a mask is no gene
        profile = self.mean.new_zeros(len(ids), num_genes)
        profile.scatter_add_(1, gene.clamp(0, num_genes - 1), value * real)
        return nn.functional.normalize(profile, dim=1)

    def centered(self, profiles: Tensor) -> Tensor:
        """Profiles less the mean one, of length 1."""
        return nn.functional.normalize(profiles - self.mean, dim=1)

    def forward(self, sequences: CellSequences) -> Tensor:
        first, second = self.centered(self.profiles(sequences)).chunk(2)
        return (first * second) @ self.weight + self.bias

    @torch.no_grad()
    def initialize(self, profiles: Tensor, first: Tensor, second: Tensor, label: Tensor) -> None:
        """Start from a logistic regression on products of profiles.

        Args:
            profiles: Profiles of some cells, ``[N, G]``.
            first: Rows of the first cells of pairs, ``[P]``.
            second: Rows of the second ones, ``[P]``.
            label: 1 for neighbours, ``[P]``; both kinds weigh the same.
        """
        self.mean.copy_(profiles.mean(0))
        u = self.centered(profiles).cpu()
        weight, bias = _regression((u[first] * u[second]).numpy(), label.numpy().astype(bool))
        self.weight.copy_(torch.from_numpy(weight))
        self.bias.fill_(bias)


def _regression(
    x: NDArray[np.floating], label: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], float]:
    """Weights and offset of a logistic regression; weights differ little from one for all."""
    num = len(label)
    share = np.where(label, 0.5 / max(label.sum(), 1), 0.5 / max((~label).sum(), 1))
    total = x.sum(1)

    def loss(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        level, bias, own = theta[0], theta[1], theta[2:]
        z = level * total + x @ own.astype(x.dtype) + bias
        gap = share * (expit(z) - label)
        value = share @ np.logaddexp(0, np.where(label, -z, z))
        prior = np.concatenate([[1e-6, 1e-6], np.full(len(own), 1 / (_SPREAD**2 * num))])
        slope = np.concatenate([[gap @ total, gap.sum()], gap.astype(x.dtype) @ x])
        return value + (prior * theta**2).sum() / 2, slope + prior * theta

    found = minimize(loss, np.zeros(x.shape[1] + 2), jac=True, method="L-BFGS-B").x
    return found[0] + found[2:], float(found[1])
