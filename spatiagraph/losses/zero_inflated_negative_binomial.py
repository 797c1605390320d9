"""Likelihood of counts of which some are zero for no biological reason."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from spatiagraph.losses.negative_binomial import negative_binomial_nll


def zero_inflated_negative_binomial_nll(
    x: Tensor, log_mu: Tensor, log_theta: Tensor, logit: Tensor, mask: Tensor | None = None
) -> Tensor:
    r"""Negative log-likelihood of counts under a zero-inflated negative binomial, per entry.

    A count is lost with probability :math:`\pi = \mathrm{sigmoid}(\ell)`, otherwise it is a
    negative binomial with mean :math:`\mu` and inverse dispersion :math:`\theta`:

    .. math::
        -\log p(x) = \begin{cases}
        -\ln\left(\pi + (1 - \pi)\, \mathrm{NB}(0)\right) & x = 0 \\
        -\ln(1 - \pi) - \ln \mathrm{NB}(x) & x > 0
        \end{cases}

    The objective of `SPATIA <https://arxiv.org/abs/2507.04704>`_ is its mean over the genes of a
    cell, with :math:`\mu_g = S \, \mathrm{softmax}_g(a)` that shares out the cell's counts
    :math:`S`, and :math:`\ln\theta` cut at 15. Everything is added up as logarithms, in float32
    or better also under autocast, so no small constant is needed.

    Args:
        x: Counts.
        log_mu: :math:`\ln\mu`, broadcastable to ``x``.
        log_theta: :math:`\ln\theta`, broadcastable to ``x``.
        logit: :math:`\ell`, broadcastable to ``x``; ``-inf`` is a plain negative binomial.
        mask: Entries to score, boolean, broadcastable to ``x``: measured genes, tokens that are
            no padding. The rest loses 0 and gets no gradient, whatever it holds, ``-inf`` as
            :math:`\ln\mu` of an unmeasured gene included.

    Returns:
        The loss of each entry, in the shape of ``x``; average with
        :func:`~spatiagraph.losses.masked_mean` and the same mask.

    Examples:
        >>> log_mu, log_theta = torch.tensor(2.0).log(), torch.tensor(1.5).log()
        >>> nll = zero_inflated_negative_binomial_nll(
        ...     torch.tensor([0.0, 1.0]), log_mu, log_theta, torch.tensor(0.3)
        ... )
        >>> [round(value, 4) for value in nll.tolist()]
        [0.3655, 2.2795]
    """
    dtype = torch.promote_types(log_mu.dtype, torch.float32)
    x, log_mu, log_theta, logit = (t.to(dtype) for t in (x, log_mu, log_theta, logit))
    if mask is not None:
        if mask.dtype != torch.bool:
            raise ValueError(f"Expected a boolean 'mask', got {mask.dtype}")
        # before the logarithms, as 0 · inf would be nan in the backward pass
        x, log_mu, log_theta, logit = (
            torch.where(mask, t, 0) for t in (x, log_mu, log_theta, logit)
        )
    nll = negative_binomial_nll(x, log_mu, log_theta)
    kept = logsigmoid(-logit)  # ln(1 - π)
    at_zero = -torch.logaddexp(logsigmoid(logit), kept - nll)
    loss = torch.where(x == 0, at_zero, nll - kept)
    return loss if mask is None else torch.where(mask, loss, 0)
