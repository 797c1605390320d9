"""From a plan, in which every point goes a little everywhere, to one partner each."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Rule = Literal["argmax", "sample", "assignment", "barycentric"]
RULES: tuple[Rule, ...] = ("argmax", "sample", "assignment", "barycentric")


class Match(NamedTuple):
    """Partner of each row.

    Attributes:
        target: Column, ``[N]``; -1 for none.
        confidence: Share of the row's mass that goes to the chosen partner, ``[N]``; 0 for none.
            With ``"argmax"`` it is :func:`row_confidence`, with the other rules at most that.
        point: Where the row's mass goes on average, ``[N, D]``; only if ``"barycentric"``.
    """

    target: Tensor
    confidence: Tensor
    point: Tensor | None = None


def row_confidence(plan: Tensor) -> Tensor:
    r"""Confidence of the best partner of each row: :math:`c_i = \max_j P_{ij} / \sum_j P_{ij}`.

    From :math:`1/M` (goes everywhere alike) to 1, whatever the number of rows, unlike
    :math:`\max_j P_{ij} \le 1/N`.

    Args:
        plan: ``[N, M]``.

    Returns:
        ``[N]``.

    Examples:
        >>> row_confidence(torch.tensor([[0.25, 0.25], [0.0, 0.5]]))
        tensor([0.5000, 1.0000])
    """
    return plan.amax(1) / plan.sum(1)


def match_rows(share: Tensor, rule: Rule, *, draw: Tensor | None, y: Tensor) -> Match:
    """Partners by any rule that treats each row independently.

    Args:
        share: Rows of a plan, each of sum 1, ``[N, M]``.
        rule: Not ``"assignment"``.
        draw: Numbers in [0, 1), ``[N]``, to sample with.
        y: Targets, ``[M, D]``.
    """
    point = None
    if rule == "sample":
        assert draw is not None
        cumulative = share.cumsum(1)
        target = torch.searchsorted(cumulative, (draw * cumulative[:, -1]).unsqueeze(1), right=True)
        target = target.squeeze(1).clamp(max=share.size(1) - 1)
    elif rule == "barycentric":
        point = share @ y
        target = torch.cdist(point, y, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    else:
        target = share.argmax(1)
    return Match(target, share.gather(1, target.unsqueeze(1)).squeeze(1), point)


def match_one_to_one(share: Tensor) -> Match:
    """Partners so that no two rows share one and the most mass goes along; some stay unmatched.

    Args:
        share: All rows of a plan, each of sum 1, ``[N, M]``.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = (
        torch.as_tensor(index, device=share.device)
        for index in linear_sum_assignment(share.cpu().numpy(), maximize=True)
    )
    target = rows.new_full((len(share),), -1)
    target[rows] = columns
    confidence = share.new_zeros(len(share))
    confidence[rows] = share[rows, columns]
    return Match(target, confidence)
