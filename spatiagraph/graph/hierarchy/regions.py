"""From the niches of cells to their regions."""

import torch
from torch import Tensor


def region_of(niche: Tensor, tissue: Tensor) -> Tensor:
    """Region of each cell, by its niche.

    Args:
        niche: Niche of each cell, ``[N]``; -1 for none.
        tissue: Region of each niche, ``[M]``; -1 for none. There may be no niche at all.

    Returns:
        ``[N]``; -1 for none.

    Examples:
        >>> region_of(torch.tensor([1, -1, 0]), torch.tensor([3, 4])).tolist()
        [4, -1, 3]
    """
    if not tissue.numel():
        return torch.full_like(niche, -1)
    return torch.where(niche >= 0, tissue[niche.clamp(min=0)], -1)
