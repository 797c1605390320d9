"""Pairs of nodes of a sub-slice whose distance is known: nearest ones, and all of virtual cells."""

from enum import IntEnum

import torch
from torch import Tensor

_ROWS = 2048  # rows of the distance matrix held at once


class NodeKind(IntEnum):
    """Kinds of the nodes of a sub-slice, as SToFM numbers them."""

    CELL = 0
    CLS = 1
    VIRTUAL = 2
    PADDING = 3


def known_pairs(
    pos: Tensor, kind: Tensor, num_neighbors: int = 49, *, dense: bool = False
) -> Tensor:
    """Pairs of nodes of one sub-slice whose distance is a model's condition.

    A cell or virtual cell knows its nearest nodes, and a virtual cell all of them. Knowing is
    mutual. ``CLS`` has no position: it is in no pair and takes the place of no neighbour.

    Args:
        pos: Positions, ``[L, 2]``.
        kind: :class:`NodeKind` of each node, ``[L]``.
        num_neighbors: Nearest others that each node knows; all where there are fewer.
        dense: Know all distances.

    Returns:
        ``[2, E]`` int64 with the lower node first, each pair once, sorted.

    Examples:
        >>> kind = torch.tensor([1, 0, 0, 0])
        >>> known_pairs(torch.tensor([[9.0, 9], [0, 0], [1, 0], [5, 0]]), kind, 1).tolist()
        [[1, 2], [2, 3]]
    """
    node = (kind != NodeKind.CLS).nonzero().squeeze(1)
    num = node.numel()
    k = min(num_neighbors, num - 1)
    if k < 1:
        return node.new_empty(2, 0)
    if dense or k == num - 1:
        return node[torch.triu_indices(num, num, 1, device=node.device)]
    at, of_virtual = pos[node], kind[node] == NodeKind.VIRTUAL
    known = (of_virtual.unsqueeze(0) | of_virtual.unsqueeze(1)).expand(num, num).clone()
    for rows in torch.arange(num, device=node.device).split(_ROWS):
        # the expanded square loses digits between near nodes
        away = torch.cdist(at[rows], at, compute_mode="donot_use_mm_for_euclid_dist")
        away[torch.arange(len(rows), device=node.device), rows] = torch.inf
        known[rows] = known[rows].scatter(1, away.topk(k, largest=False).indices, True)
    known |= known.T.clone()
    return node[known.triu(1).nonzero().T]
