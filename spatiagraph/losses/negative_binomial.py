"""Negative-binomial likelihood of counts."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from spatiagraph.losses.gamma_ratio import log_gamma_ratio


def negative_binomial_nll(x: Tensor, log_mu: Tensor, log_theta: Tensor) -> Tensor:
    r"""Negative log-likelihood of counts under a negative binomial, entry by entry.

    .. math::
        -\log p(x) = \ln\Gamma(\theta) + \ln\Gamma(x + 1) - \ln\Gamma(x + \theta)
        - \theta \ln\frac{\theta}{\theta + \mu} - x \ln\frac{\mu}{\theta + \mu}

    with mean :math:`\mu` and inverse dispersion :math:`\theta`: the variance is
    :math:`\mu + \mu^2/\theta`. Computed in float32 or better.

    Args:
        x: Counts.
        log_mu: :math:`\ln\mu`, broadcastable to ``x``.
        log_theta: :math:`\ln\theta`, broadcastable to ``x``.

    Returns:
        The loss of each entry, in the shape of ``x``.

    Examples:
        >>> nll = negative_binomial_nll(torch.tensor(0.0), torch.tensor(2.0).log(),
        ...                             torch.tensor(1.5).log())
        >>> round(nll.item(), 5)  # 1.5 · ln((1.5 + 2) / 1.5)
        1.27095
    """
    dtype = torch.promote_types(log_mu.dtype, torch.float32)
    x, log_mu, log_theta = x.to(dtype), log_mu.to(dtype), log_theta.to(dtype)
    log_odds = log_mu - log_theta  # ln(μ/θ)
    theta = log_theta.exp()
    return (
        torch.lgamma(x + 1)
        - log_gamma_ratio(x, theta)
        + theta * softplus(log_odds)  # θ ln((θ + μ)/θ), exact also when μ ≪ θ
        + x * softplus(-log_odds)
    )
