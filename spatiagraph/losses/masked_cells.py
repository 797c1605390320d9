"""Prediction of cells that were hidden from their niche."""

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from spatiagraph.losses.mean import masked_mean


def masked_cells_loss(prediction: Tensor, z: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Distance of a hidden cell from its prediction by the surroundings.

    .. math::
        L = \frac{1}{|\mathcal{M}|} \sum_{i \in \mathcal{M}}
        \left(1 - \cos(\mathbf{p}_i, \mathrm{sg}(\mathbf{z}_i))\right)

    over the hidden cells :math:`\mathcal{M}`; hidden niches of a tissue are scored alike. No
    gradient flows into the target: an embedding would else make itself easy to predict. Computed
    in float32 or better.

    Args:
        prediction: Embedding of each cell, predicted from its context, ``[N, D]``.
        z: Embedding of each cell by itself, ``[N, D]``.
        mask: Hidden cells, boolean ``[N]``; all when ``None``.

    Returns:
        A scalar from 0 to 2; 0 if no cell is hidden.

    Raises:
        ValueError: If shapes disagree.

    Examples:
        >>> z = torch.eye(3)
        >>> masked_cells_loss(z, 5 * z), masked_cells_loss(z, z.roll(1, 0))
        (tensor(0.), tensor(1.))
    """
    if prediction.dim() != 2 or prediction.shape != z.shape:
        raise ValueError(
            "Expected 'prediction' and 'z' [N, D] of one shape, got "
            f"{list(prediction.shape)} and {list(z.shape)}"
        )
    if mask is not None and mask.shape != prediction.shape[:1]:
        raise ValueError(
            f"Expected 'mask' [{prediction.size(0)}], one entry per cell, got {list(mask.shape)}"
        )
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    similarity = cosine_similarity(prediction.to(dtype), z.detach().to(dtype), dim=1)
    return masked_mean(1 - similarity, mask)
