"""Expression head: embedding → the counts one expects to see."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable


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
    def initialize(self, x: Tensor) -> None:
        """Start from the mean profile of a sample of counts, ``[N, G]``."""
        total = x.sum(0) + 0.5
        self.linear.bias.copy_((total / total.sum()).log())
