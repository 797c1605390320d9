"""Focal loss of logits."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


def focal_loss(logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    r"""Cross-entropy that counts less where the answer is sure, one value per logit.

    :math:`-\alpha_t (1 - p_t)^\gamma \log p_t` of `"Focal Loss for Dense Object Detection"
    <https://arxiv.org/abs/1708.02002>`_.

    Args:
        logits: Any shape.
        target: 1 or 0, of the same shape.
        alpha: Weight of positives; negatives weigh ``1 - alpha``.
        gamma: How much less sure answers count.

    Examples:
        >>> focal_loss(torch.zeros(2), torch.tensor([1.0, 0.0]))
        tensor([0.0433, 0.1300])
    """
    error = binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = torch.where(target > 0, alpha, 1 - alpha)
    return weight * (1 - (-error).exp()) ** gamma * error
