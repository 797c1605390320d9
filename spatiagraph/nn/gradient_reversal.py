"""Gradient reversal: the identity forward, the negated gradient backward."""

from typing import Any

import torch
from torch import Tensor, nn


def reverse_gradient(x: Tensor, strength: float = 1.0) -> Tensor:
    r"""The input itself, with the gradient reversed.

    .. math::
        y = x, \qquad \frac{\partial L}{\partial x} = -\lambda\, \frac{\partial L}{\partial y},

    from `"Domain-Adversarial Training of Neural Networks" <https://arxiv.org/abs/1505.07818>`_.
    What comes after learns to predict, what comes before to prevent it.

    Args:
        x: Any tensor.
        strength: :math:`\lambda`; 0 cuts the gradient off.

    Returns:
        ``x``.

    Examples:
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> reverse_gradient(x, 0.5).square().backward()
        >>> x.grad  # −0.5 · 2x
        tensor(-2.)
    """
    return _Reverse.apply(x, strength)


class GradientReversal(nn.Module):
    r"""Layer form of :func:`reverse_gradient`.

    Args:
        strength: :math:`\lambda`.

    Shapes:
        - **x**, **output**: any
    """

    def __init__(self, strength: float = 1.0):
        super().__init__()
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        return reverse_gradient(x, self.strength)

    def extra_repr(self) -> str:
        return f"strength={self.strength}"


class _Reverse(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, strength: float) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        ctx.strength = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None
