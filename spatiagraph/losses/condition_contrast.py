"""Contrast of conditions: the right one explains a path better than a wrong one."""

import torch
from torch import Tensor


def condition_contrast_loss(right: Tensor, wrong: Tensor, *, margin: float = 0.1) -> Tensor:
    r"""Hinge on how much better the velocity fits its own transition than another one.

    .. math::
        L = \mathrm{mean}_i \max(0, \; e_i - e_i^- + m \, \bar e)

    with the errors :math:`e` under the own and :math:`e^-` under a wrong transition, and the mean
    error of the batch :math:`\bar e` as their unit (no gradient flows through it).

    Args:
        right: Error of each sample under its own condition, ``[B]``, see
            :func:`~spatiagraph.losses.velocity_error`.
        wrong: Under a wrong one, ``[B]``, see :func:`wrong_transitions`.
        margin: :math:`m`, by how much the right one must win, relative to the mean error.

    Returns:
        A scalar; 0 where the right condition wins by more than the margin everywhere.

    Raises:
        ValueError: Shapes differ, or the margin is negative.

    Examples:
        >>> condition_contrast_loss(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 0.9]))
        tensor(0.1000)
    """
    if right.dim() != 1 or right.shape != wrong.shape:
        raise ValueError(
            f"Expected two errors [B], got {list(right.shape)} and {list(wrong.shape)}"
        )
    if margin < 0:
        raise ValueError(f"Expected 'margin' of at least 0, got {margin}")
    return (right - wrong + margin * right.detach().mean()).clamp(min=0).mean()


def wrong_transitions(
    transition: Tensor, num_transitions: int, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw another transition for each, the remaining ones with equal probability.

    Args:
        transition: In ``[0, num_transitions)``, ``[B]``.
        num_transitions: How many there are, at least 2.
        generator: Source of randomness, on the device of ``transition``.

    Returns:
        ``[B]``, nowhere equal to ``transition``.

    Raises:
        ValueError: There is no other transition.

    Examples:
        >>> wrong_transitions(torch.tensor([0, 1, 1]), 2)
        tensor([1, 0, 0])
    """
    if num_transitions < 2:
        raise ValueError(f"Expected at least 2 transitions to confuse, got {num_transitions}")
    step = torch.randint(
        1, num_transitions, transition.shape, generator=generator, device=transition.device
    )
    return (transition + step) % num_transitions
