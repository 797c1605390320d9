"""Parts of a slide: its graph, niches and regions renumbered, its features sliced."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from spatiagraph.data.convert.counts import take_rows
from spatiagraph.data.convert.tissue_data import CELL, TissueData
from spatiagraph.graph.build.group import rank_in_group
from spatiagraph.graph.edges import edges_by_target, incoming_edges
from spatiagraph.graph.order import hilbert_order
from spatiagraph.graph.ranges import ranges, row_of_each
from spatiagraph.graph.tiles import LevelEdges, tile_context

_ROWS = "_rows"  # where a tile keeps the rows of its items until it is filled: level → rows


def in_hilbert_order(data: TissueData) -> TissueData:
    """The same slide with its cells along a Hilbert curve: neighbours lie close in memory.

    ``cell_index`` still names the row of each cell in the slide. Groups keep their numbers.

    Args:
        data: The whole slide.
    """
    order = hilbert_order(data.pos)
    if bool((order[1:] > order[:-1]).all()):
        return data
    at = torch.empty_like(order)
    at[order] = torch.arange(data.num_nodes)
    result = copy.copy(data)
    if "x" in data:
        result.x = take_rows(data.x, order)
    result.edge_index = incoming_edges(data.edge_index, order, at.__getitem__, data.num_nodes)
    first = data.level_names[:1]
    for name in first:  # levels above refer to groups, which stay where they are
        groups = torch.arange(data.num_items(name))
        index = data[f"{name}_index"]
        result[f"{name}_index"] = incoming_edges(index, groups, at.__getitem__, data.num_nodes)
    for key in ("pos", "core", "cell_index", *first):
        result[key] = data[key][order]
    for key, level in data.items_of.items():
        if level != CELL:
            continue
        if key in data.crop_sources:
            result.crop_sources[key] = data.crop_sources[key].select(order)
        else:
            result[key] = take_rows(data[key], order)
    return result


def cut_tile(data: TissueData, core: Tensor, num_hops: int) -> TissueData:
    """Graph and levels of a tile, renumbered; no features yet.

    Args:
        data: The whole slide.
        core: Rows of the cells the tile answers for, ``[C]``.
        num_hops: Hops over ``edge_index`` of the model.
    """
    names = data.level_names
    levels = [LevelEdges(data[name], data[f"{name}_index"]) for name in names]
    nodes, core_mask, groups = tile_context(core, data.edge_index, num_hops, levels)
    place = partial(_rank_in, nodes)  # not a table: a slide has thousands of tiles
    tile = TissueData(
        pos=data.pos[nodes],
        edge_index=incoming_edges(data.edge_index, nodes, place, nodes.numel()),
        core=core_mask,
        cell_index=data.cell_index[nodes],
        levels=names,
    )
    members, rows = nodes, {CELL: nodes}
    for name, chosen in zip(names, groups, strict=True):
        tile[name] = _rank_in(chosen, data[name][members])
        tile[f"{name}_index"] = incoming_edges(
            data[f"{name}_index"], chosen, place, members.numel()
        )
        tile[f"{name}_pos"] = data[f"{name}_pos"][chosen]
        members, place, rows[name] = chosen, partial(_rank_in, chosen), chosen
    tile.__dict__[_ROWS] = rows
    return tile


def whole_tile(data: TissueData) -> TissueData:
    """A slide, or a part of one, as a tile of its own: what :func:`cut_tile` gives for all of it.

    Args:
        data: The slide.
    """
    names = data.level_names
    tile = TissueData(
        pos=data.pos,
        edge_index=data.edge_index,
        core=data.core,
        cell_index=data.cell_index,
        levels=names,
    )
    for key in (f"{name}{end}" for name in names for end in ("", "_index", "_pos")):
        tile[key] = data[key]
    rows = {level: torch.arange(data.num_items(level)) for level in (CELL, *names)}
    tile.__dict__[_ROWS] = rows
    return tile


def rows_of(tile: TissueData) -> dict[str, Tensor]:
    """Rows of the cells and groups of a tile in its slide, before it is filled: level → rows."""
    return dict(tile.__dict__[_ROWS])


def fill_tile(
    tile: TissueData,
    data: TissueData,
    slide: int,
    *,
    take_cells: Callable[[Tensor], Tensor] | None = None,
    crop_context: bool = True,
) -> TissueData:
    """Put the features of its cells and groups into a tile.

    Args:
        tile: What :func:`cut_tile` returned; changed in place.
        data: The whole slide it was cut from.
        slide: Number of that slide.
        take_cells: Rows of the cells of the tile → rows of the cells to put in their place.
        crop_context: Read the crops of cells that are context; they are masked otherwise.
    """
    for level, rows in tile.__dict__[_ROWS].items():
        if level == CELL and take_cells is not None:
            rows = take_cells(rows)
        cropped = tile.core if level == CELL and not crop_context else None
        for key, value in data.take(level, rows, cropped=cropped).items():
            tile[key] = value
            tile.items_of[key] = level
    tile.gene_mask = data.gene_mask
    tile.slide = slide
    return tile


def cut_niches(
    data: TissueData,
    niches: Tensor,
    region: Tensor,
    own: Tensor,
    region_of_own: Tensor,
    max_cells: int,
    generator: torch.Generator,
) -> TissueData:
    """Graph of some niches and of nothing else; no features yet.

    Cells that belong to one of the niches without having it for their own (where niches overlap)
    come along as context, as many as there is room for. Edges from other cells and other regions
    are cut. A region may come up more than once, with niches of its own each time.

    Args:
        data: The whole slide.
        niches: Niches, ascending in each region, ``[M]``.
        region: Region of each in the result, ascending from 0, ``[M]``.
        own: Rows of the cells to answer for, whose own niche is one of them, ``[C]``.
        region_of_own: Region of each of them in the result, ``[C]``.
        max_cells: Most cells of a niche.
        generator: Chooses among the context where there is no room for all.
    """
    first, second = data.level_names
    num_cells, num_niches = data.num_nodes, data.num_items(first)
    of_cells = data[first]
    own = region_of_own * num_cells + own  # a cell once more in another batch is another cell
    (ptr, source), _ = data[f"{first}_index"].get_csc()
    size = ptr[niches + 1] - ptr[niches]
    group = row_of_each(size)
    member = source[ranges(ptr[niches], size)]
    mine = of_cells[member] == niches[group]
    member += region[group] * num_cells
    kept = mine & torch.isin(member, own)
    if not bool(mine.all()):
        room = max_cells - torch.bincount(group[kept], minlength=niches.numel())
        others = (~mine).nonzero().squeeze(1)
        others = others[torch.randperm(others.numel(), generator=generator)]
        kept[others[rank_in_group(group[others]) < room[group[others]]]] = True
    member, group = member[kept], group[kept]
    place = torch.cat([own, member]).unique()
    within, nodes = place // num_cells, place % num_cells
    (ptr, source), _ = data.edge_index.get_csc()
    degree = ptr[nodes + 1] - ptr[nodes]
    target = row_of_each(degree)
    source = source[ranges(ptr[nodes], degree)] + within[target] * num_cells
    source = _rank_in(place, source)
    inside, total = source >= 0, nodes.numel()
    of_cell = of_cells[nodes]
    of_cell = torch.where(of_cell >= 0, within * num_niches + of_cell, -1)
    regions = data[second][niches[torch.searchsorted(region, region.unique())]]
    num_regions = regions.numel()
    tile = TissueData(
        pos=data.pos[nodes],
        edge_index=edges_by_target(source[inside], target[inside], total, total),
        core=torch.isin(place, own),
        cell_index=data.cell_index[nodes],
        levels=data.level_names,
    )
    tile[first] = _rank_in(region * num_niches + niches, of_cell)
    tile[f"{first}_index"] = edges_by_target(
        torch.searchsorted(place, member), group, total, niches.numel()
    )
    tile[f"{first}_pos"] = data[f"{first}_pos"][niches]
    tile[second] = region
    tile[f"{second}_index"] = edges_by_target(
        torch.arange(niches.numel()), region, niches.numel(), num_regions
    )
    tile[f"{second}_pos"] = data[f"{second}_pos"][regions]
    tile.__dict__[_ROWS] = {CELL: nodes, first: niches, second: regions}
    return tile


def _rank_in(chosen: Tensor, rows: Tensor) -> Tensor:
    """Rank of each of some rows among the chosen ones, which are sorted; -1 for the remaining."""
    if not chosen.numel():
        return torch.full_like(rows, -1)
    rank = torch.searchsorted(chosen, rows).clamp(max=chosen.numel() - 1)
    return torch.where(chosen[rank] == rows, rank, -1)


def cell_batch(data: TissueData, rows: Tensor) -> TissueData:
    """Some cells of a prepared slide with what is known of each, without edges.

    Args:
        data: The slide.
        rows: ``[n]``.
    """
    core = torch.ones(len(rows), dtype=torch.bool)
    return TissueData(num_nodes=len(rows), core=core, **data.take("cell", rows))
