"""Ridge regression in closed form: where linear decoders start."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

STRENGTHS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Strengths that are tried when none is given."""
_ROWS = 4096  # left out in turn, at most


class Ridge(NamedTuple):
    r"""Linear map :math:`\mathbf{y} \approx \mathbf{W}\mathbf{z} + \mathbf{b}`.

    Attributes:
        weight: ``[G, D]``.
        bias: ``[G]``.
        strength: :math:`\lambda` that it was found with.
    """

    weight: Tensor
    bias: Tensor
    strength: float


def ridge(z: Tensor, y: Tensor, strength: float | None = None) -> Ridge:
    r"""Ridge regression of many targets at once.

    .. math::
        \mathbf{W} = \mathbf{Y}^\top \mathbf{Z}
        (\mathbf{Z}^\top \mathbf{Z} + \lambda N \bar{v} \, \mathbf{I})^{-1}

    with centred :math:`\mathbf{Z}` and the mean variance :math:`\bar{v}` of its channels, so that
    the strength does not depend on the scale of the embeddings. The intercept is not shrunk.

    Args:
        z: Embeddings, ``[N, D]``.
        y: Targets, ``[N, G]``.
        strength: :math:`\lambda`; when not given, that of :data:`STRENGTHS` which predicts cells
            that were left out best, see :func:`best_strength`.

    Examples:
        >>> found = ridge(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [3.0]]), 0.0)
        >>> found.weight.item(), found.bias.item()
        (2.0, 1.0)
    """
    if strength is None:
        strength = best_strength(z, y)
    centre, level = z.mean(0).double(), y.mean(0).double()
    centred = z.double() - centre
    gram = centred.T @ centred  # [D, D]
    penalty = strength * gram.diagonal().mean() + 1e-9  # of constant embeddings nothing is learned
    gram.diagonal().add_(penalty)
    weight = torch.linalg.solve(gram, centred.T @ (y.double() - level)).T
    return Ridge(weight.to(z.dtype), (level - weight @ centre).to(z.dtype), strength)


def best_strength(z: Tensor, y: Tensor, strengths: Sequence[float] = STRENGTHS) -> float:
    r"""Strength of ridge regression that predicts cells which were left out one by one best.

    The error of a cell that was left out has a closed form, :math:`e_i / (1 - h_i)` with the
    leverage :math:`h_i`; it is squared, relative to the variance of each target, and meant over
    targets and some thousand cells.

    Args:
        z: Embeddings, ``[N, D]``.
        y: Targets, ``[N, G]``.
        strengths: Those to choose from.
    """
    centred, target = z.double() - z.double().mean(0), y.double() - y.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    values = values.clamp(min=0.0)
    rotated = centred @ vectors  # [N, D], orthogonal columns
    moment = rotated.T @ target  # [D, G]
    variance = target.square().mean(0)
    rows = slice(None, None, -(-len(z) // _ROWS))
    rotated, target = rotated[rows], target[rows]
    told = variance > 1e-12 * variance.max().clamp(min=1e-300)  # the others have nothing to tell
    errors = []
    for strength in strengths:
        shrunk = 1.0 / (values + strength * values.mean() + 1e-9)
        leverage = (rotated.square() * shrunk).sum(1, keepdim=True) + 1.0 / len(z)
        left_out = (target - rotated @ (shrunk[:, None] * moment)) / (1 - leverage).clamp(min=1e-6)
        errors.append((left_out.square().mean(0)[told] / variance[told]).mean())
    return strengths[int(torch.stack(errors).argmin())]
