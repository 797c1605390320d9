"""Positions of niches."""

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph.graph.edges import plain_edges
from spatiagraph.graph.points import as_points


def niche_positions(
    pos: ArrayLike | Tensor, niche: Tensor, num_niches: int | None = None
) -> Tensor:
    """Centre of each niche: the mean position of its cells.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        niche: Niche of each cell, ``[N]``, with -1 for none; or members → niches, ``[2, P]``.
        num_niches: Number of niches, ``M``; by default the highest number plus one, or the size
            that an ``EdgeIndex`` carries.

    Returns:
        ``[M, 2]`` in µm, of the type of ``pos`` (float64 from NumPy); a niche without cells is NaN.

    Raises:
        ValueError: ``niche`` does not have one entry per cell.

    Examples:
        >>> niche_positions([[0, 0], [2, 0], [5, 5]], torch.tensor([0, 0, 1])).tolist()
        [[1.0, 0.0], [5.0, 5.0]]
    """
    points = torch.from_numpy(as_points(pos))
    if niche.dim() == 2:
        if num_niches is None and isinstance(niche, EdgeIndex):
            num_niches = niche.sparse_size(1)
        cell, group = plain_edges(niche).cpu()
    else:
        if niche.numel() != len(points):
            raise ValueError(
                f"Expected 'niche' with one entry for each of {len(points)} cells, "
                f"got {niche.numel()}"
            )
        cell = (niche >= 0).nonzero().flatten().cpu()
        group = niche.cpu()[cell]
    if num_niches is None:
        num_niches = int(group.max()) + 1 if group.numel() else 0
    total = torch.zeros(num_niches, 2, dtype=points.dtype).index_add_(0, group, points[cell])
    size = torch.bincount(group, minlength=num_niches)
    mean = total / size[:, None]  # 0/0 is NaN: nowhere
    return mean.to(pos.device, pos.dtype) if isinstance(pos, Tensor) else mean
