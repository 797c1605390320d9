"""Everybody with everybody, inside groups that do not overlap."""

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph.graph.edges import edges_by_target
from spatiagraph.graph.ranges import ranges, row_of_each


def group_graph(assignment: Tensor, max_neighbors: int = 64) -> EdgeIndex:
    """Connect the members of each group with each other and with themselves.

    In a group of ``s`` members more than ``max_neighbors``, member ``p`` (counted in the order of
    rows) is connected to the members ``p + floor(j · s / max_neighbors)`` modulo ``s``: itself and
    others evenly spread over the group. Each is then also heard by ``max_neighbors`` members.

    Args:
        assignment: Group of each member, ``[N]``; one with -1 is connected to itself alone.
        max_neighbors: Most members that one is connected to, itself counted.

    Returns:
        Messages member → member, ``[2, E]``, sorted by target, then by source, on the device of
        ``assignment``. Without groups above ``max_neighbors`` it is symmetric.

    Raises:
        ValueError: ``max_neighbors`` is below 1.

    Examples:
        >>> group_graph(torch.tensor([0, 1, 0])).tolist()
        [[0, 2, 1, 0, 2], [0, 0, 1, 2, 2]]
    """
    if max_neighbors < 1:
        raise ValueError(f"Expected 'max_neighbors' of at least 1, got {max_neighbors}")
    num = assignment.numel()
    num_groups = int(assignment.max()) + 1 if num else 0
    alone = num_groups + (assignment < 0).cumsum(0) - 1
    group = torch.where(assignment < 0, alone, assignment)
    order = group.argsort(stable=True)
    size = torch.bincount(group)
    first = size.cumsum(0) - size
    place, of_target = rank_in_group(group), size[group]
    degree = of_target.clamp(max=max_neighbors)
    target = row_of_each(degree)
    step = ranges(torch.zeros_like(degree), degree)
    crowd = of_target[target]
    crowded = crowd > max_neighbors
    spread = place[target] + (step * crowd).div(max_neighbors, rounding_mode="floor")
    step = torch.where(crowded, spread % crowd, step)
    source = order[first[group[target]] + step]
    if bool(crowded.any()):
        source = source[(target * num + source).argsort()]
    return edges_by_target(source, target, num, num)


def rank_in_group(group: Tensor) -> Tensor:
    """Rank of each row within its group, ``[N]``: the number of earlier rows of it.

    Args:
        group: Group of each row, ``[N]``, integers from 0.

    Examples:
        >>> rank_in_group(torch.tensor([1, 0, 1, 1])).tolist()
        [0, 0, 1, 2]
    """
    order = group.argsort(stable=True)
    size = torch.bincount(group)
    rank = torch.empty_like(group)
    row = torch.arange(group.numel(), device=group.device)
    rank[order] = row - (size.cumsum(0) - size)[group[order]]
    return rank
