"""Times along a path: those to learn from, and those to step through."""

from typing import Literal

import torch
from torch import Tensor


def skewed_times(normal: Tensor) -> Tensor:
    r"""Times that lie mostly near the target, from standard normal numbers.

    .. math::
        t = \frac{1}{1 + \sigma}, \qquad \sigma = e^{1.2 n - 1.2},

    the noise levels of `"Elucidating the Design Space of Diffusion-Based Generative Models"
    <https://arxiv.org/abs/2206.00364>`_ as times, clipped to :math:`[10^{-4}, 1]`.

    Args:
        normal: :math:`n`, any shape.

    Examples:
        >>> skewed_times(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([0.9168, 0.7685, 0.5000])
    """
    return (1 / (1 + torch.exp(1.2 * normal - 1.2))).clamp(1e-4, 1)


def sample_times(
    num: int,
    *,
    schedule: Literal["uniform", "skewed"] = "uniform",
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """One time per sample to learn from.

    Args:
        num: How many, :math:`B`.
        schedule: ``"uniform"`` over [0, 1), or by :func:`skewed_times`.
        generator: Source of randomness.
        device: Where to put them.
        dtype: Of the result.

    Returns:
        ``[B]``.

    Raises:
        ValueError: The schedule is unknown.
    """
    if schedule == "uniform":
        return torch.rand(num, generator=generator, device=device, dtype=dtype)
    if schedule == "skewed":
        return skewed_times(torch.randn(num, generator=generator, device=device, dtype=dtype))
    raise ValueError(f'Expected schedule to be "uniform" or "skewed", got {schedule!r}')


def uniform_grid(num_steps: int) -> Tensor:
    """Times of equal steps from 0 to 1.

    Args:
        num_steps: How many, :math:`S`.

    Returns:
        ``[S + 1]`` float64.

    Examples:
        >>> uniform_grid(2)
        tensor([0.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    return torch.linspace(0, 1, _checked(num_steps) + 1, dtype=torch.float64)


def _checked(num_steps: int) -> int:
    if num_steps < 1:
        raise ValueError(f"Expected at least one step, got {num_steps}")
    return num_steps
