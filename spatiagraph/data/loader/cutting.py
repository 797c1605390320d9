"""Parts of a slide: its graph, niches and regions renumbered, its features sliced."""

import numpy as np
import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph.data.convert import TissueData
from spatiagraph.graph.build.group import rank_in_group
from spatiagraph.graph.order import hilbert_order
from spatiagraph.graph.tiles import tile_context

CELL_FEATURES = ("depth", "image", "image_mask", "window_um", "labels", "z")
"""What a slide may know of each cell, besides ``x``, its place and its groups."""
NICHE_FEATURES = ("niche_image", "niche_image_mask")
TISSUE_FEATURES = ("tissue_image", "tissue_image_mask")
_ROWS = ("node_index", "niche_row", "tissue_row")  # where the features of a tile are found


def in_hilbert_order(data: TissueData) -> TissueData:
    """The same slide with its cells along a Hilbert curve: neighbours lie close in memory.

    ``cell_index`` still names the row of each cell in the slide. Niches keep their numbers.

    Args:
        data: The whole slide.
    """
    order = hilbert_order(data.pos)
    if bool((order[1:] > order[:-1]).all()):
        return data
    place = _positions(order, data.num_nodes)
    num_cells, niches = data.num_nodes, torch.arange(data.num_niches)
    result = data.clone()
    result.x = _take_rows(data.x, order)
    result.edge_index = _incoming(data.edge_index, order, place, num_cells)
    result.niche_index = _incoming(data.niche_index, niches, place, num_cells)
    for key in ("pos", "niche", "core", "cell_index", *CELL_FEATURES):
        if key in data:
            result[key] = data[key][order]
    return result


def cut_tile(data: TissueData, core: Tensor, num_hops: int) -> TissueData:
    """Graph, niches and regions of a tile, renumbered; no features yet.

    Args:
        data: The whole slide.
        core: Rows of the cells the tile answers for, ``[C]``.
        num_hops: Hops over ``edge_index`` of the model.
    """
    nodes, core_mask, niches = tile_context(
        core,
        data.edge_index,
        num_hops,
        niche=data.niche,
        niche_index=data.niche_index,
        tissue=data.tissue,
    )
    cell_at = _positions(nodes, data.num_nodes)
    niche_at = _positions(niches, data.num_niches)
    regions, region = data.tissue[niches].unique(return_inverse=True)
    own = data.niche[nodes]
    return TissueData(
        pos=data.pos[nodes],
        edge_index=_incoming(data.edge_index, nodes, cell_at, nodes.numel()),
        niche=torch.where(own >= 0, niche_at[own.clamp(min=0)], -1),
        niche_index=_incoming(data.niche_index, niches, cell_at, nodes.numel()),
        niche_pos=data.niche_pos[niches],
        tissue=region,
        tissue_pos=data.tissue_pos[regions],
        core=core_mask,
        cell_index=data.cell_index[nodes],
        node_index=nodes,
        niche_row=niches,
        tissue_row=regions,
    )


def fill_tile(tile: TissueData, data: TissueData, slide: int) -> TissueData:
    """Put the features of its cells, niches and regions into a tile.

    Args:
        tile: What :func:`cut_tile` returned; changed in place.
        data: The whole slide it was cut from.
        slide: Number of that slide.
    """
    features = (CELL_FEATURES, NICHE_FEATURES, TISSUE_FEATURES)
    for name, keys in zip(_ROWS, features, strict=True):
        rows = tile[name]
        del tile[name]
        if name == "node_index":
            counts = _take_rows(data.x, rows)
            tile.x = counts if counts.layout is torch.strided else counts.to_dense()
        for key in keys:
            if key in data:
                tile[key] = data[key][rows]
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
    num_cells, num_niches = data.num_nodes, data.num_niches
    own = region_of_own * num_cells + own  # a cell once more in another visit is another cell
    (ptr, source), _ = data.niche_index.get_csc()
    size = ptr[niches + 1] - ptr[niches]
    group = each(torch.arange(niches.numel()), size)
    member = source[spans(ptr[niches], size)]
    mine = data.niche[member] == niches[group]
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
    target = each(torch.arange(nodes.numel()), degree)
    source = source[spans(ptr[nodes], degree)] + within[target] * num_cells
    source = _place_in(place, source)
    inside, total = source >= 0, nodes.numel()
    of_cell = data.niche[nodes]
    of_cell = torch.where(of_cell >= 0, within * num_niches + of_cell, -1)
    regions = data.tissue[niches[torch.searchsorted(region, region.unique())]]
    return TissueData(
        pos=data.pos[nodes],
        edge_index=_by_target(source[inside], target[inside], total, total),
        niche=_place_in(region * num_niches + niches, of_cell),
        niche_index=_by_target(torch.searchsorted(place, member), group, total, niches.numel()),
        niche_pos=data.niche_pos[niches],
        tissue=region,
        tissue_pos=data.tissue_pos[regions],
        core=torch.isin(place, own),
        cell_index=data.cell_index[nodes],
        node_index=nodes,
        niche_row=niches,
        tissue_row=regions,
    )


def spans(start: Tensor, size: Tensor) -> Tensor:
    """All places of some stretches, one stretch after the other.

    Examples:
        >>> spans(torch.tensor([5, 1]), torch.tensor([2, 3])).tolist()
        [5, 6, 1, 2, 3]
    """
    shift = each(start - (size.cumsum(0) - size), size)
    return torch.arange(shift.numel()) + shift


def each(values: Tensor, times: Tensor) -> Tensor:
    """Each value as many times as it says, ``[sum(times)]``.

    NumPy's: torch wakes all its threads even for a handful of values, 1 ms each time.
    """
    return torch.from_numpy(np.repeat(values.numpy(), times.numpy()))


def _place_in(chosen: Tensor, rows: Tensor) -> Tensor:
    """Place of each of some rows among the chosen ones, which ascend; -1 for the others."""
    place = torch.searchsorted(chosen, rows).clamp(max=chosen.numel() - 1)
    return torch.where(chosen[place] == rows, place, -1)


def _positions(chosen: Tensor, size: int) -> Tensor:
    """New number of each chosen row, -1 elsewhere."""
    position = torch.full((size,), -1)
    position[chosen] = torch.arange(chosen.numel())
    return position


def _incoming(edges: EdgeIndex, targets: Tensor, source_at: Tensor, num_sources: int) -> EdgeIndex:
    """Edges into ``targets`` from kept sources, renumbered; still sorted by target."""
    (ptr, source), _ = edges.get_csc()
    degree = ptr[targets + 1] - ptr[targets]
    source = source_at[source[spans(ptr[targets], degree)]]
    target = each(torch.arange(targets.numel()), degree)
    kept = source >= 0
    return _by_target(source[kept], target[kept], num_sources, targets.numel())


def _by_target(source: Tensor, target: Tensor, num_sources: int, num_targets: int) -> EdgeIndex:
    """Edges that are sorted by target."""
    size = (num_sources, num_targets)
    return EdgeIndex(torch.stack([source, target]), sparse_size=size, sort_order="col")


def _take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of a dense or sparse CSR matrix, in the layout it has."""
    if x.layout is torch.strided:
        return x[rows]
    ptr, column, value = x.crow_indices(), x.col_indices(), x.values()
    size = ptr[rows + 1] - ptr[rows]
    entry = spans(ptr[rows], size)
    new_ptr = torch.cat([ptr.new_zeros(1), size.cumsum(0)])
    shape = (rows.numel(), x.size(1))
    return torch.sparse_csr_tensor(
        new_ptr, column[entry], value[entry], shape, check_invariants=False
    )
