"""Quantile bins of the values of each cell, on the device where they are."""

import torch
from torch import Tensor


def quantile_bins(
    values: Tensor, num_bins: int = 51, *, scale: Tensor | None = None, pad: Tensor | None = None
) -> Tensor:
    """Bin each value by the quantiles of the positive ones of its cell.

    The rule of :func:`spatiagraph.data.tokens.bin_tokens` on dense rows, bit for bit: zeros are bin
    0, the edges of the others are quantiles at ``num_bins - 1`` equally spaced probabilities, and a
    value that several bins could claim takes the lowest.

    Args:
        values: Counts or normalised expression, ``[N, L]``.
        num_bins: Number of bins, that of zeros included.
        scale: What to divide each value by first, ``[N, L]`` or ``[L]``.
        pad: True where there is no value, ``[N, L]``.

    Returns:
        Bins ``[N, L]``, of the type of ``values``; 0 where a value is 0 or padding.

    Raises:
        ValueError: If there are fewer than 3 bins.

    Examples:
        >>> quantile_bins(torch.tensor([[0.0, 1.0, 2.0, 3.0, 3.0]]), 4)
        tensor([[0., 1., 1., 3., 3.]])
    """
    if num_bins < 3:
        raise ValueError(f"Expected 'num_bins' of 3 or more, got {num_bins}")
    x = values.detach().double()  # ties must stay ties
    if scale is not None:
        x = x / scale.double()
    present = (x > 0) if pad is None else (x > 0) & ~pad
    x = x.masked_fill(~present, torch.inf)
    ranked = x.sort(dim=1).values.contiguous()
    x = x.contiguous()
    first = torch.searchsorted(ranked, x)
    last = torch.searchsorted(ranked, x, right=True) - 1
    steps = num_bins - 2
    span = present.sum(1, keepdim=True) - 1
    below = (steps * first + span.clamp(min=1) - 1) // span.clamp(min=1)  # rounded up
    bins = below + (below * span <= steps * last)
    return torch.where(present, bins, 0).to(values.dtype)
