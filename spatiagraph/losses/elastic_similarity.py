"""Elastic similarity of cells: near ones are pulled together, distant ones pushed apart."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from spatiagraph.losses.mean import masked_mean


def elastic_similarity_loss(
    h: Tensor, *, threshold: float = 0.3, mask: Tensor | None = None
) -> Tensor:
    r"""Elastic cell similarity: how far cosines of different cells are from a threshold, negated.

    .. math::
        L = \frac{1}{N (N - 1)} \sum_{i \ne j} 1 - \left(\max(0, \cos(\mathbf{h}_i, \mathbf{h}_j))
        - \beta\right)^2

    Cosines above :math:`\beta` are raised by it, those below lowered, as in `scGPT
    <https://doi.org/10.1038/s41592-024-02201-0>`_ and SPATIA. Computed in float32 or better.

    Args:
        h: Embedding of each cell, ``[N, D]``.
        threshold: :math:`\beta`, in [0, 1].
        mask: Cells that count, boolean ``[N]``; all when not given.

    Returns:
        A scalar; 0 where there are not two cells to compare.

    Raises:
        ValueError: If the embeddings are no matrix, or the threshold is no cosine.

    Examples:
        >>> elastic_similarity_loss(torch.eye(3))  # 1 - 0.3²
        tensor(0.9100)
        >>> elastic_similarity_loss(torch.ones(2, 3))  # 1 - 0.7²
        tensor(0.5100)
    """
    if h.dim() != 2:
        raise ValueError(f"Expected embeddings 'h' [N, D], got {list(h.shape)}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"Expected 'threshold' in [0, 1], got {threshold}")
    if mask is not None:
        h = h[mask]
    h = normalize(h.to(torch.promote_types(h.dtype, torch.float32)), dim=1)
    first, second = torch.triu_indices(len(h), len(h), 1, device=h.device)
    cosine = (h @ h.T)[first, second].clamp(min=0)
    return masked_mean(1 - (cosine - threshold).square())
