"""InfoNCE: agreement of two views of the same cells against negatives, of the batch or chosen."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from spatiagraph.losses.mean import masked_mean


def info_nce_loss(
    a: Tensor,
    b: Tensor,
    *,
    temperature: float | Tensor = 0.07,
    mask: Tensor | None = None,
    alternatives: Tensor | None = None,
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
        alternatives: Pairs of cells that are to be told apart, boolean ``[N, N]``; all when not
            given. The two views of one cell are always compared.

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
    if alternatives is not None:
        if alternatives.shape != similarity.shape or alternatives.dtype != torch.bool:
            raise ValueError(
                f"Expected 'alternatives' as bool {list(similarity.shape)}, got "
                f"{alternatives.dtype} {list(alternatives.shape)}"
            )
        own = torch.eye(num_cells, dtype=torch.bool, device=a.device)
        similarity = similarity.masked_fill(~(alternatives | own), -torch.inf)
    both = similarity.logsumexp(0) + similarity.logsumexp(1)
    return masked_mean(both / 2 - similarity.diagonal(), mask)


def paired_info_nce_loss(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    mask: Tensor | None = None,
) -> Tensor:
    r"""InfoNCE against negatives of each query's own.

    .. math::
        \ell = -\frac{1}{N} \sum_i \ln \frac{e^{\cos(\mathbf{q}_i, \mathbf{p}_i) / \tau}}
        {e^{\cos(\mathbf{q}_i, \mathbf{p}_i) / \tau}
        + \sum_m e^{\cos(\mathbf{q}_i, \mathbf{n}_{im}) / \tau}}

    as in `ST-Align <https://arxiv.org/abs/2411.16793>`_. Where nothing can be told apart it is
    :math:`\ln(1 + M)`, and 0 for a query without negatives. Computed in float32 or better.

    Args:
        query: ``[N, D]``.
        positive: The other view of each, ``[N, D]``.
        negatives: That view of others, ``[N, M, D]``.
        temperature: :math:`\tau`; a tensor if it is learned.
        mask: Negatives that count, boolean ``[N, M]``; all when not given.

    Returns:
        A scalar, the mean over the queries.

    Raises:
        ValueError: If shapes do not fit.

    Examples:
        >>> query = torch.ones(2, 4)
        >>> paired_info_nce_loss(query, query, torch.ones(2, 5, 4))  # ln 6
        tensor(1.7918)
    """
    shape = (*query.shape[:1], negatives.size(1) if negatives.dim() == 3 else -1, *query.shape[1:])
    if query.dim() != 2 or query.shape != positive.shape or negatives.shape != shape:
        raise ValueError(
            f"Expected 'query' and 'positive' [N, D] and 'negatives' [N, M, D], got "
            f"{list(query.shape)}, {list(positive.shape)} and {list(negatives.shape)}"
        )
    dtype = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        q = normalize(query.to(dtype), dim=1)
        own = (q * normalize(positive.to(dtype), dim=1)).sum(1, keepdim=True)
        others = (normalize(negatives.to(dtype), dim=2) @ q.unsqueeze(2)).squeeze(2)
        others = others if mask is None else others.masked_fill(~mask, -torch.inf)
        similarity = torch.cat([own, others], 1) / temperature
    return masked_mean(similarity.logsumexp(1) - similarity[:, 0])
