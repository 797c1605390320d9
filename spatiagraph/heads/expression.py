"""Expression head: embedding → expected counts."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from spatiagraph.heads.regression import ridge
from spatiagraph.nn.config import Configurable

_PRIOR = 0.3  # of 0.02 to 3, what hidden genes of real slides were predicted best from
_ROUNDS = 3
_THETA = (0.1, 100.0)


class Expression(NamedTuple):
    r"""Negative-binomial parameters.

    Attributes:
        log_mu: :math:`\ln\mu`, ``[N, G]``; ``-inf`` at unmeasured genes.
        log_theta: :math:`\ln\theta` of each gene, ``[G]``.
    """

    log_mu: Tensor
    log_theta: Tensor


class ExpressionHead(Configurable):
    r"""Linear decoder to a negative binomial, as in `LDVAE <https://doi.org/10.1093/bioinformatics/btaa169>`_.

    .. math::
        \mu_{ig} = \ell_i \, \mathrm{softmax}_{g}(\mathbf{W} \mathbf{z}_i + \mathbf{b})_g

    over the measured genes, with the library :math:`\ell_i` the counts to be shared out. A linear
    decoder keeps the embedding readable: each channel has one weight per gene.

    Args:
        channels: Size of the embedding, :math:`D`.
        num_genes: Panel size, :math:`G`.

    Shapes:
        - **z**: ``[N, D]``
        - **library**: ``[N]``
        - **gene_mask**: measured genes, ``[G]`` or ``[N, G]``
        - **output**: :class:`Expression`
    """

    def __init__(self, channels: int, num_genes: int):
        super().__init__()
        self.channels = channels
        self.num_genes = num_genes
        self.linear = nn.Linear(channels, num_genes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.log_theta = nn.Parameter(torch.zeros(num_genes))
        self.strength: float | None = None
        """Strength of the ridge regression it started from: how little the cells told of genes."""

    def forward(self, z: Tensor, library: Tensor, gene_mask: Tensor | None = None) -> Expression:
        logits = self.linear(z)  # [N, G]
        if gene_mask is not None:
            logits = logits.masked_fill(~gene_mask, -torch.inf)
        log_share = torch.log_softmax(logits.float(), -1)
        log_mu = log_share + library.clamp(min=1e-8).log().unsqueeze(-1)
        return Expression(log_mu, self.log_theta)

    def expected(self, z: Tensor, depth: float = 1e4) -> Tensor:
        r"""Expression of every gene that embeddings lead one to expect, on a logarithmic scale.

        .. math::
            \ln(1 + t \, \mathrm{softmax}_g(\mathbf{W} \mathbf{z}_i + \mathbf{b})_g)

        Args:
            z: ``[N, D]``.
            depth: Counts that a whole cell is brought to, :math:`t`.

        Returns:
            ``[N, G]``.
        """
        library = torch.full((len(z),), depth, device=z.device)
        return torch.log1p(self(z, library).log_mu.exp())

    @torch.no_grad()
    def initialize(
        self, x: Tensor, z: Tensor | None = None, gene_mask: Tensor | None = None
    ) -> None:
        r"""Start from the mean profile of a sample of cells, or a regression on their embeddings.

        With embeddings, from ridge regression on them of log shares: with the mean profile
        :math:`\mathbf{m}` and the counts :math:`n_i` of a cell,

        .. math::
            y_{ig} = \ln \frac{x_{ig} + p \, m_g}{(n_i + p) \, m_g}, \qquad
            p = 0.3 \operatorname{median}_i n_i,

        where the counts :math:`p` of the mean profile keep the many zeros from being believed. The
        mean of a logarithm is not that of the counts: the intercept is set so that each gene has
        its total.

        Args:
            x: Counts, ``[N, G]``.
            z: Embeddings of the same cells, best of a part of their genes, ``[N, D]``.
            gene_mask: Measured genes, ``[G]`` or ``[N, G]``; the others say nothing.
        """
        seen = torch.ones_like(x) if gene_mask is None else gene_mask.expand_as(x).to(x.dtype)
        total = (x * seen).sum(0) + 0.5
        mean = total / total.sum()
        self.linear.bias.copy_(mean.log())
        if z is None:
            return
        depth = (x * seen).sum(1, keepdim=True) / (seen @ mean).clamp(min=1e-6).unsqueeze(1)
        prior = _PRIOR * depth.median().clamp(min=1.0)
        share = ((x + prior * mean) / (depth + prior) / mean).log()  # relative to the mean profile
        found = ridge(z, share * seen)
        self.strength = found.strength
        self.linear.weight.copy_(found.weight)
        self.linear.bias.add_(found.bias)
        for _ in range(_ROUNDS):  # shares sum to one: a gene that is raised lowers the others
            mu = self(z, x.mul(seen).sum(1), seen.bool()).log_mu.exp()
            self.linear.bias.add_((total / (mu.sum(0) + 0.5)).log())
        # by moments: a start whose dispersion is far off looks worse than it is, and whatever
        # training does looks good beside it
        mu = self(z, x.mul(seen).sum(1), seen.bool()).log_mu.exp() * seen
        excess = (((x - mu).square() - mu) * seen).sum(0)
        theta = mu.square().sum(0) / excess.clamp(min=1e-6)
        self.log_theta.copy_(theta.clamp(*_THETA).log())
