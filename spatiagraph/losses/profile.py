"""Expression of a niche as a whole."""

import torch
from torch import Tensor

from spatiagraph.losses.mean import masked_mean


def niche_profile_loss(
    prediction: Tensor, total: Tensor, num_cells: Tensor, gene_mask: Tensor | None = None
) -> Tensor:
    r"""Squared error of the mean expression of each niche, on a logarithmic scale.

    .. math::
        L = \mathrm{mean}_{m, g} \left(p_{mg}
        - \ln\left(1 + \frac{1}{|m|} \sum_{i \in m} x_{ig}\right)\right)^2

    over the measured genes. The mean does not depend on how many cells a niche holds, where the
    sum would mostly tell cell density. Computed in float32 or better.

    Args:
        prediction: Predicted :math:`\ln(1 + \bar x)`, ``[M, G]``.
        total: Counts summed over the cells of each niche, ``[M, G]``.
        num_cells: Cells of each niche, :math:`|m|`, ``[M]``. A niche without cells costs nothing.
        gene_mask: Measured genes, boolean ``[G]`` or ``[M, G]``; all when ``None``. The rest costs
            nothing, whatever it holds.

    Returns:
        A scalar.

    Raises:
        ValueError: If shapes disagree.

    Examples:
        >>> total = torch.tensor([[0.0, 6.0]])
        >>> niche_profile_loss(torch.tensor([[0.0, 3.0]]).log1p(), total, torch.tensor([2]))
        tensor(0.)
    """
    if prediction.shape != total.shape or num_cells.shape != total.shape[:1]:
        raise ValueError(
            "Expected 'prediction' and 'total' [M, G] with 'num_cells' [M], got "
            f"{list(prediction.shape)}, {list(total.shape)} and {list(num_cells.shape)}"
        )
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    size = num_cells.to(dtype).unsqueeze(1)  # [M, 1]
    scored = size > 0
    if gene_mask is not None:
        if gene_mask.shape not in (total.shape[1:], total.shape) or gene_mask.dtype != torch.bool:
            raise ValueError(
                f"Expected 'gene_mask' as bool [{total.size(1)}] or {list(total.shape)}, "
                f"got {gene_mask.dtype} {list(gene_mask.shape)}"
            )
        scored = scored & gene_mask
    target = torch.where(scored, total.to(dtype) / size, 0).log1p()
    return masked_mean((prediction.to(dtype) - target).square(), scored)
