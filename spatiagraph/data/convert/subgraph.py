"""Part of a slide: some of its cells, the edges between them, the groups they are in."""

from copy import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spatiagraph.data.convert.counts import take_rows
from spatiagraph.graph.edges import incoming_edges, plain_edges

if TYPE_CHECKING:
    from spatiagraph.data.convert.tissue_data import TissueData


def cell_subgraph(data: "TissueData", subset: Tensor) -> "TissueData":
    """Some cells of a slide, with the edges between them and the groups that hold any of them.

    A group that loses members keeps its centre and image; one that loses all is gone.

    Args:
        data: The slide, or a part of it.
        subset: Rows of the cells in their new order, or a mask ``[N]``.

    Raises:
        ValueError: If rows repeat or are none of the cells.
    """
    cells = subset.nonzero().squeeze(1) if subset.dtype is torch.bool else subset
    num = data.num_nodes
    if subset.dtype is torch.bool and subset.numel() != num:
        raise ValueError(f"Expected a mask of {num} cells, got one of {subset.numel()}")
    if cells.numel() and (int(cells.min()) < 0 or int(cells.max()) >= num):
        raise ValueError(f"Expected rows of {num} cells, got {int(cells.min())}…{int(cells.max())}")
    if cells.unique().numel() != cells.numel():
        raise ValueError("Expected every cell once, got rows that repeat")
    part = copy(data)
    for key in ("pos", "core", "cell_index"):
        part[key] = data[key][cells]
    if "x" in data:
        part.x = take_rows(data.x, cells)
    kept, number = {"cell": cells}, _numbers(cells, num)
    part.edge_index = incoming_edges(data.edge_index, cells, number.__getitem__, cells.numel())
    members = cells
    for name in data.level_names:
        own, edges = data[name][members], plain_edges(data[f"{name}_index"])
        groups = torch.cat([own[own >= 0], edges[1][number[edges[0]] >= 0]]).unique()
        of_group = _numbers(groups, data.num_items(name))
        part[name] = torch.where(own >= 0, of_group[own.clamp(min=0)], -1)
        part[f"{name}_index"] = incoming_edges(
            data[f"{name}_index"], groups, number.__getitem__, members.numel()
        )
        part[f"{name}_pos"] = data[f"{name}_pos"][groups]
        kept[name], members, number = groups, groups, of_group
    for key, level in data.items_of.items():
        if key in data.crop_sources:
            part.crop_sources[key] = data.crop_sources[key].select(kept[level])
        else:
            part[key] = take_rows(data[key], kept[level])
    return part


def _numbers(chosen: Tensor, size: int) -> Tensor:
    """New number of each chosen row, -1 elsewhere."""
    number = torch.full((size,), -1, dtype=torch.long, device=chosen.device)
    number[chosen] = torch.arange(chosen.numel(), device=chosen.device)
    return number
