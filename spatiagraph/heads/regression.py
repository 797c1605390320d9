"""Ridge regression in closed form: where linear decoders start."""

from typing import NamedTuple

import torch
from torch import Tensor


class Ridge(NamedTuple):
    r"""Linear map :math:`\mathbf{y} \approx \mathbf{W}\mathbf{z} + \mathbf{b}`.

    Attributes:
        weight: ``[G, D]``.
        bias: ``[G]``.
    """

    weight: Tensor
    bias: Tensor


def ridge(z: Tensor, y: Tensor, strength: float = 0.1) -> Ridge:
    r"""Ridge regression of many targets at once.

    .. math::
        \mathbf{W} = \mathbf{Y}^\top \mathbf{Z}
        (\mathbf{Z}^\top \mathbf{Z} + \lambda N \bar{v} \, \mathbf{I})^{-1}

    with centred :math:`\mathbf{Z}` and the mean variance :math:`\bar{v}` of its channels, so that
    the strength does not depend on the scale of the embeddings. The intercept is not shrunk.

    Args:
        z: Embeddings, ``[N, D]``.
        y: Targets, ``[N, G]``.
        strength: :math:`\lambda`.

    Examples:
        >>> found = ridge(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [3.0]]), 0.0)
        >>> found.weight.item(), found.bias.item()
        (2.0, 1.0)
    """
    centre, level = z.mean(0).double(), y.mean(0).double()
    centred = z.double() - centre
    gram = centred.T @ centred  # [D, D]
    penalty = strength * gram.diagonal().mean() + 1e-9  # of constant embeddings nothing is learned
    gram.diagonal().add_(penalty)
    weight = torch.linalg.solve(gram, centred.T @ (y.double() - level)).T
    return Ridge(weight.to(z.dtype), (level - weight @ centre).to(z.dtype))
