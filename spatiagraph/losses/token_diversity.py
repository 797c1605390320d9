"""Diversity of the tokens of one cell: a penalty on their similarity."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from spatiagraph.losses.mean import masked_mean


def token_diversity_loss(tokens: Tensor) -> Tensor:
    r"""Mean absolute cosine between the tokens of a cell, over all pairs of different tokens.

    .. math::
        L = \frac{1}{N T (T - 1)} \sum_i \sum_{s \ne t} |\cos(\mathbf{h}_{is}, \mathbf{h}_{it})|

    0 when they are orthogonal, 1 when they all point along one line. Computed in float32 or
    better.

    Args:
        tokens: Tokens of each cell, ``[N, T, D]``, two or more.

    Returns:
        A scalar; 0 without cells.

    Raises:
        ValueError: If there are not two tokens to compare.

    Examples:
        >>> token_diversity_loss(torch.eye(3)[None])
        tensor(0.)
        >>> token_diversity_loss(torch.tensor([[[1.0, 0.0], [-3.0, 0.0]]]))
        tensor(1.)
    """
    if tokens.dim() != 3 or tokens.size(1) < 2:
        raise ValueError(
            f"Expected 'tokens' [N, T, D] with at least 2 tokens, got {list(tokens.shape)}"
        )
    h = normalize(tokens.to(torch.promote_types(tokens.dtype, torch.float32)), dim=-1)
    num_tokens = tokens.size(1)
    first, second = torch.triu_indices(num_tokens, num_tokens, 1, device=h.device)
    return masked_mean((h[:, first] * h[:, second]).sum(-1).abs())
