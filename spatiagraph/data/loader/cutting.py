"""Parts of a slide: its graph, niches and regions renumbered, its features sliced."""

import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from spatiagraph.data.convert import TissueData
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


def _positions(chosen: Tensor, size: int) -> Tensor:
    """New number of each chosen row, -1 elsewhere."""
    position = torch.full((size,), -1)
    position[chosen] = torch.arange(chosen.numel())
    return position


def _incoming(edges: EdgeIndex, targets: Tensor, source_at: Tensor, num_sources: int) -> EdgeIndex:
    """Edges into ``targets`` from kept sources, renumbered; still sorted by target."""
    (ptr, source), _ = edges.get_csc()
    start, count = ptr[targets], ptr[targets + 1] - ptr[targets]
    offset = torch.arange(int(count.sum())) - (count.cumsum(0) - count).repeat_interleave(count)
    source = source_at[source[start.repeat_interleave(count) + offset]]
    target = torch.arange(targets.numel()).repeat_interleave(count)
    kept = source >= 0
    size = (num_sources, targets.numel())
    return EdgeIndex(torch.stack([source[kept], target[kept]]), sparse_size=size, sort_order="col")


def _take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of a dense or sparse CSR matrix, in the layout it has."""
    if x.layout is torch.strided:
        return x[rows]
    ptr, column, value = x.crow_indices(), x.col_indices(), x.values()
    start, count = ptr[rows], ptr[rows + 1] - ptr[rows]
    new_ptr = torch.cat([ptr.new_zeros(1), count.cumsum(0)])
    entry = torch.arange(int(new_ptr[-1])) + (start - new_ptr[:-1]).repeat_interleave(count)
    shape = (rows.numel(), x.size(1))
    return torch.sparse_csr_tensor(
        new_ptr, column[entry], value[entry], shape, check_invariants=False
    )
