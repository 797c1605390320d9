"""Agreement of two views of the same cells against all other cells of the batch."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from spatiagraph.losses.mean import masked_mean


def info_nce_loss(
    a: Tensor, b: Tensor, *, temperature: float | Tensor = 0.07, mask: Tensor | None = None
) -> Tensor:
    r"""Symmetric InfoNCE: find the image of a cell by its genes, and its genes by the image.

    .. math::
        L = -\frac{1}{2N} \sum_i \left(
        \ln \frac{e^{\cos(\mathbf{a}_i, \mathbf{b}_i) / \tau}}
                 {\sum_j e^{\cos(\mathbf{a}_i, \mathbf{b}_j) / \tau}}
        + \ln \frac{e^{\cos(\mathbf{a}_i, \mathbf{b}_i) / \tau}}
                   {\sum_j e^{\cos(\mathbf{a}_j, \mathbf{b}_i) / \tau}} \right)

    as in `CLIP <https://arxiv.org/abs/2103.00020>`_. Views that cannot be told apart cost
    :math:`\ln N`. Computed in float32 or better, also under autocast.

    Args:
        a: One view of each cell, ``[N, D]``.
        b: The other, ``[N, D]``.
        temperature: :math:`\tau`; a tensor if it is learned.
        mask: Cells that have both views, boolean ``[N]``. The remaining ones cost nothing, get no
            gradient and are no alternatives to choose from.

    Returns:
        A scalar, the mean over the cells that have both views; 0 if none has.

    Raises:
        ValueError: If the views do not pair up.

    Examples:
        >>> a = torch.eye(4)
        >>> info_nce_loss(a, a, temperature=0.01)
        tensor(0.)
        >>> info_nce_loss(a, torch.ones(4, 4))  # ln 4
        tensor(1.3863)
    """
    if a.dim() != 2 or a.shape != b.shape:
        raise ValueError(
            f"Expected two views [N, D] of one shape, got {list(a.shape)} and {list(b.shape)}"
        )
    num_cells = a.size(0)
    if mask is not None:
        if mask.shape != (num_cells,) or mask.dtype != torch.bool:
            raise ValueError(
                f"Expected 'mask' as bool [{num_cells}], got {mask.dtype} {list(mask.shape)}"
            )
        a, b = (torch.where(mask.unsqueeze(1), view, 0) for view in (a, b))
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    with torch.autocast(a.device.type, enabled=False):
        similarity = normalize(a.to(dtype), dim=1) @ normalize(b.to(dtype), dim=1).T / temperature
    if mask is not None:
        similarity = similarity.masked_fill(~(mask & mask.unsqueeze(1)), -torch.inf)
    both = similarity.logsumexp(0) + similarity.logsumexp(1)
    return masked_mean(both / 2 - similarity.diagonal(), mask)
