"""Ratio of gamma functions, exact also where the two are nearly equal."""

import torch
from torch import Tensor

# From here Stirling's series, cut after two terms, is off by less than 3e-11.
_STIRLING_FROM = 32.0


def log_gamma_ratio(x: Tensor, theta: Tensor) -> Tensor:
    r"""Logarithm of :math:`\Gamma(x + \theta) / \Gamma(\theta)`, entry by entry.

    The difference of two ``lgamma`` loses everything once :math:`\theta` is large: in float32 at
    :math:`\theta = e^{15}`, where a negative binomial is a Poisson, both are about 5e7 and known
    to ± 2, and so are the likelihood and its gradient. There the difference is taken term by term
    in Stirling's series, with :math:`S(z) = 1/12z - 1/360z^3`:

    .. math::
        (\theta - \tfrac12) \ln(1 + x/\theta) + x \ln(x + \theta) - x + S(x + \theta) - S(\theta)

    Args:
        x: Counts.
        theta: Positive numbers, broadcastable to ``x``.

    Returns:
        In the common shape of both.

    Examples:
        >>> log_gamma_ratio(torch.tensor(3.0), torch.tensor(2.0)).exp()  # 2 · 3 · 4
        tensor(24.)
    """
    small, large = theta.clamp(max=_STIRLING_FROM), theta.clamp(min=_STIRLING_FROM)
    total = x + large
    stirling = (
        (large - 0.5) * torch.log1p(x / large) + x * total.log() - x + _tail(total) - _tail(large)
    )
    plain = torch.lgamma(x + small) - torch.lgamma(small)
    return torch.where(theta > _STIRLING_FROM, stirling, plain)


def _tail(z: Tensor) -> Tensor:
    inverse = 1 / z
    return inverse * (1 / 12 - inverse * inverse / 360)
