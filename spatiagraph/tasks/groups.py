"""Counts of groups, summed over their members."""

import torch
from torch import Tensor

from spatiagraph.graph.edges import plain_edges
from spatiagraph.nn.cell_graph import LevelEmbeddings


def group_totals(
    level: LevelEmbeddings, groups: Tensor, x: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum over the members of some groups.

    Args:
        level: Groups of the cells, as they were pooled.
        groups: Rows of the groups to sum, without repeats, ``[M']``.
        x: What to sum, ``[N, G]``.

    Returns:
        Sums ``[M', G]``, members of each group ``[M']``, and one member of each ``[M']``, -1 for a
        group without members.
    """
    if level.members is None:
        member = (level.own >= 0).nonzero().squeeze(1)
        group = level.own[member]
    else:
        member, group = plain_edges(level.members)
    position = group.new_full((len(level.h),), -1)
    position[groups] = torch.arange(groups.numel(), device=group.device)
    inside = position[group] >= 0
    edges = torch.stack([position[group[inside]], member[inside]])
    share = torch.sparse_coo_tensor(
        edges, x.new_ones(edges.size(1)), (groups.numel(), x.size(0)), check_invariants=False
    )
    size = torch.bincount(edges[0], minlength=groups.numel())
    one = group.new_full((groups.numel(),), -1).scatter(0, edges[0], edges[1])
    with torch.autocast(x.device.type, enabled=False):  # half precision cannot count
        return torch.sparse.mm(share, x), size, one


def scored_groups(
    own: Tensor, core: Tensor, ratio: float, generator: torch.Generator | None
) -> Tensor:
    """A random share of the groups that core cells belong to, sorted, ``[M']``.

    Args:
        own: Group of each cell, ``[N]``; -1 for none.
        core: Cells that count, ``[N]``.
        ratio: Share of the groups to keep; at least one is.
        generator: Of the choice.
    """
    found = own[core]
    groups = found[found >= 0].unique()
    keep = max(1, int(ratio * groups.numel()))
    device = groups.device if generator is None else generator.device
    chosen = torch.randperm(groups.numel(), generator=generator, device=device)[:keep]
    return groups[chosen.sort().values.to(groups.device)]
