"""Head that says from how alike two cells are whether they are neighbours."""

import torch
from torch import Tensor, nn

from spatiagraph.data.tokens import CellSequences
from spatiagraph.nn.config import Configurable

_STEPS = 50  # of Newton's method for two numbers


class CellSimilarity(Configurable):
    r"""Log-odds that two cells are neighbours, from the genes they share.

    A cell is a profile :math:`\mathbf{u}` in which its gene of rank :math:`r` has
    :math:`1 / \log_2(r + 2)`, less the mean profile, of length 1:

    .. math::
        z = a \sum_g w_g u_g v_g + b .

    With all weights :math:`w_g = 1` this is the cosine of expression, on a scale of log-odds:
    what a model that is to tell more of two cells has to beat. It starts there, and learns which
    genes count.

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
        self.weight = nn.Parameter(torch.ones(num_genes))
        self.scale = nn.Parameter(torch.zeros(()))
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
        return self.scale * (first * second * self.weight).sum(1) + self.bias

    @torch.no_grad()
    def initialize(self, profiles: Tensor, first: Tensor, second: Tensor, label: Tensor) -> None:
        """Start from the cosine: the two numbers of a logistic regression on it.

        Args:
            profiles: Profiles of some cells, ``[N, G]``.
            first: Rows of the first cells of pairs, ``[P]``.
            second: Rows of the second ones, ``[P]``.
            label: 1 for neighbours, ``[P]``; both kinds weigh the same.
        """
        self.mean.copy_(profiles.mean(0))
        u = self.centered(profiles)
        cosine = (u[first] * u[second]).sum(1).double()
        x = torch.stack([cosine, torch.ones_like(cosine)], 1)
        y = label.double()
        share = torch.where(y > 0, 0.5 / y.sum().clamp(min=1), 0.5 / (1 - y).sum().clamp(min=1))
        theta = x.new_zeros(2)
        for _ in range(_STEPS):
            p = (x @ theta).sigmoid()
            ridge = 1e-6 * torch.eye(2, dtype=x.dtype)
            slope = x.T @ (share * (p - y)) + ridge @ theta
            theta -= torch.linalg.solve((x.T * (share * p * (1 - p))) @ x + ridge, slope)
        self.scale.copy_(theta[0])
        self.bias.copy_(theta[1])
