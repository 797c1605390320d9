"""Expression head on gene tokens: the token of a gene → the count one expects of it."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable

MAX_LOG_THETA = 15.0


class TokenExpression(NamedTuple):
    r"""Zero-inflated negative binomial of each gene token.

    Attributes:
        log_mu: :math:`\ln\mu`, ``[N, L]``; ``-inf`` on padding.
        log_theta: :math:`\ln\theta`, ``[N, L]``.
        logit: Logit of the zero inflation, ``[N, L]``.
    """

    log_mu: Tensor
    log_theta: Tensor
    logit: Tensor


class TokenExpressionHead(Configurable):
    r"""MLP of each gene token to a zero-inflated negative binomial, as in SPATIA.

    .. math::
        \mu_g = S \, \mathrm{softmax}_g(a_g), \qquad \ln\theta_g = \min(b_g, 15), \qquad
        \ell_g,

    with :math:`(a, b, \ell)` the three outputs for a token and the library :math:`S` the counts
    of the cell over its tokens (`arXiv:2507.04704 <https://arxiv.org/abs/2507.04704>`_).

    Args:
        channels: Size of a token, :math:`d`.
        dropout: Dropout after the first layer.

    Shapes:
        - **tokens**: ``[N, L, d]``
        - **library**: ``[N]``
        - **pad**: True where there is no gene, ``[N, L]``
        - **output**: :class:`TokenExpression`
    """

    def __init__(self, channels: int, dropout: float = 0.1):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, channels),
            nn.LayerNorm(channels),
            nn.LeakyReLU(),
            nn.Dropout(dropout),
            nn.Linear(channels, channels),
            nn.LayerNorm(channels),
            nn.LeakyReLU(),
            nn.Linear(channels, 3),
        )

    def forward(
        self, tokens: Tensor, library: Tensor, pad: Tensor | None = None
    ) -> TokenExpression:
        share, log_theta, logit = self.mlp(tokens).float().unbind(-1)
        if pad is not None:
            share = share.masked_fill(pad, -torch.inf)
        log_mu = torch.log_softmax(share, 1) + library.clamp(min=1e-8).log().unsqueeze(1)
        return TokenExpression(log_mu, log_theta.clamp(max=MAX_LOG_THETA), logit)
