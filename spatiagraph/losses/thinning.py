"""Thinning of counts: the same cell, had it been sequenced less deeply."""

from typing import Literal

import torch
from torch import Tensor


def thin(
    counts: Tensor,
    rate: float = 0.6,
    *,
    rule: Literal["binomial", "legacy"] = "binomial",
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Lose each molecule with a probability; to predict ``counts`` from the rest is denoising.

    .. math::
        y_{ig} \sim \mathrm{Binomial}(x_{ig}, 1 - q)

    so :math:`y` is whole, at most :math:`x`, and :math:`(1 - q)\,x` on average: what a capture
    :math:`1 - q` times as good would have seen.

    Args:
        counts: Molecules counted, :math:`x`: whole numbers, any shape.
        rate: Share to lose, :math:`q`.
        rule: ``"legacy"`` is the rule of the code published with `SPATIA
            <https://arxiv.org/abs/2507.04704>`_: a Poisson number with mean :math:`0.55\,q\,x` is
            taken off, no less than 0 is left, and an entry is set to 0 with probability
            :math:`0.55\,q`. It keeps 45 % of large counts at :math:`q = 0.6`.
        generator: Source of randomness, on the device of ``counts``; torch's own when ``None``.

    Returns:
        In the shape and type of ``counts``.

    Raises:
        ValueError: If ``rate`` is not in [0, 1], or the rule is unknown.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> thin(torch.full((10_000,), 10), 0.6, generator=generator).float().mean().round()
        tensor(4.)
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"Expected 'rate' between 0 and 1, got {rate}")
    dtype = torch.promote_types(counts.dtype, torch.float32)
    x = counts.detach().to(dtype)
    if rule == "binomial":
        y = torch.binomial(x, torch.full_like(x, 1.0 - rate), generator=generator)
    elif rule == "legacy":
        lost = 1.1 * rate / 2
        y = (x - torch.poisson(x * lost, generator=generator)).clamp(min=0)
        kept = torch.rand(x.shape, generator=generator, dtype=dtype, device=x.device) >= lost
        y = y * kept
    else:
        raise ValueError(f"Expected 'rule' to be 'binomial' or 'legacy', got {rule!r}")
    return y.to(counts.dtype)
