"""Ranges one after the other, as rows of CSR and groups of sorted edges need them."""

import numpy as np
import torch
from torch import Tensor


def ranges(start: Tensor, size: Tensor) -> Tensor:
    """Concatenate ``start, start + 1, …`` of ``size`` numbers each, ``[sum(size)]``.

    Args:
        start: First number of each range, ``[n]``.
        size: Length of each range, ``[n]``.

    Examples:
        >>> ranges(torch.tensor([5, 1]), torch.tensor([2, 3])).tolist()
        [5, 6, 1, 2, 3]
    """
    shift = repeat_each(start - (size.cumsum(0) - size), size)
    return torch.arange(shift.numel(), device=size.device) + shift


def repeat_each(values: Tensor, times: Tensor) -> Tensor:
    """Repeat each value as many times as it says, ``[sum(times)]``.

    Args:
        values: ``[n]``.
        times: ``[n]``.

    Examples:
        >>> repeat_each(torch.tensor([7, 8]), torch.tensor([2, 1])).tolist()
        [7, 7, 8]
    """
    if values.device.type != "cpu":
        return values.repeat_interleave(times)
    # NumPy's: torch wakes all its threads even for a handful of values, 1 ms each time
    return torch.from_numpy(np.repeat(values.numpy(), times.numpy()))


def row_of_each(size: Tensor) -> Tensor:
    """Number of the range that each element of :func:`ranges` is of, ``[sum(size)]``.

    Args:
        size: Length of each range, ``[n]``.

    Examples:
        >>> row_of_each(torch.tensor([2, 0, 1])).tolist()
        [0, 0, 2]
    """
    return repeat_each(torch.arange(size.numel(), device=size.device), size)
