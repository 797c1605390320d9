"""Cost of moving one point to another: their distance, in units of the typical one."""

import torch
from torch import Tensor

_SAMPLE = 2048  # points of each side that a large problem's median is taken over


def cost_scale(x: Tensor, y: Tensor) -> Tensor:
    """Median distance between two clouds, which makes the entropy's strength dimensionless.

    Above 2,048 points a side, the median over that many evenly spaced rows of each. Where more than
    half of the distances are 0 the mean, and 1 if all are.

    Args:
        x: One cloud, ``[N, D]``.
        y: The other, ``[M, D]``.

    Returns:
        A scalar, positive.

    Examples:
        >>> cost_scale(torch.zeros(1, 1), torch.tensor([[1.0], [2.0], [9.0]]))
        tensor(2.)
    """
    x, y = (_thinned(side) for side in (x, y))
    cost = _distance(x, y)
    scale = cost.median()
    if scale == 0:
        scale = cost.mean()
    return scale if scale > 0 else torch.ones_like(scale)


def pair_cost(x: Tensor, y: Tensor, *, scaled: bool = True) -> Tensor:
    """Euclidean distance (not squared) of every pair, divided by the median distance.

    Args:
        x: One cloud, ``[N, D]``.
        y: The other, ``[M, D]``.
        scaled: Whether to divide by :func:`cost_scale`.

    Returns:
        ``[N, M]``.

    Examples:
        >>> pair_cost(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [0.0, 10.0], [30.0, 40.0]]))
        tensor([[0.5000, 1.0000, 5.0000]])
    """
    cost = _distance(x, y)
    return cost / cost_scale(x, y) if scaled else cost


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """Distances by differences: the quicker product of matrices blurs those near 0."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _thinned(x: Tensor) -> Tensor:
    if len(x) <= _SAMPLE:
        return x
    return x[torch.linspace(0, len(x) - 1, _SAMPLE, device=x.device).long()]
