"""Learning the velocity of a flow from pairs that are more or less certain."""

import torch
from torch import Tensor


def confidence_weights(
    confidence: Tensor, *, gamma: float = 1.0, mean: Tensor | float | None = None
) -> Tensor:
    r"""Weight of each pair: :math:`w_i = c_i^\gamma / \mathrm{E}[c^\gamma]`.

    Args:
        confidence: :math:`c`, not negative, ``[B]``.
        gamma: How much certain pairs are preferred; 0 treats all alike.
        mean: :math:`\mathrm{E}[c^\gamma]` over the training set. ``None`` takes that of the batch,
            in which a single pair always weighs 1.

    Returns:
        ``[B]``, of mean 1 over whatever the mean was taken of.

    Raises:
        ValueError: ``gamma`` is negative.

    Examples:
        >>> confidence_weights(torch.tensor([0.1, 0.2, 0.4, 0.1]))
        tensor([0.5000, 1.0000, 2.0000, 0.5000])
    """
    if gamma < 0:
        raise ValueError(f"Expected 'gamma' of at least 0, got {gamma}")
    power = confidence.pow(gamma)
    return power / (power.mean() if mean is None else mean)


def velocity_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of each sample's velocity, averaged over all its other axes.

    In float32 or better. Its mean is the loss of `"Flow Matching for Generative Modeling"
    <https://arxiv.org/abs/2210.02747>`_, that weighted by :func:`confidence_weights` the one of
    uncertain pairs.

    Args:
        prediction: ``[B, ...]``.
        target: ``[B, ...]``.

    Returns:
        ``[B]``.

    Raises:
        ValueError: Shapes differ.

    Examples:
        >>> velocity_error(torch.zeros(2, 2), torch.tensor([[1.0, 1.0], [0.0, 2.0]]))
        tensor([1., 2.])
    """
    if prediction.shape != target.shape or prediction.dim() < 2:
        raise ValueError(
            "Expected two velocities [B, ...] of one shape, got "
            f"{list(prediction.shape)} and {list(target.shape)}"
        )
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(dtype) - target.to(dtype)).square().flatten(1).mean(1)
