"""Mini-batches of tissue: tiles of neighbouring cells with the context they need."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch_geometric import EdgeIndex

from spatiagraph.data.convert import TissueData
from spatiagraph.graph.order import hilbert_order
from spatiagraph.graph.tiles import tile_context, tissue_tiles


class TileDataset(Dataset[TissueData]):
    """The tiles of some slides; item ``i`` is a tile with its context.

    Whole tissue regions go into a tile, so that context is computed once per region. A tile is
    complete: a model that looks ``num_hops`` hops over the cell graph, pools cells into niches,
    niches into regions and sends both back gives its core cells what it would give them on the
    whole slide.

    Args:
        slides: Whole slides, as :func:`~spatiagraph.data.to_data` makes them.
        tile_size: Core cells of a tile, at most; a larger region is a tile of its own.
        num_hops: Hops over ``edge_index`` of the model.
    """

    def __init__(self, slides: Sequence[TissueData], tile_size: int, num_hops: int):
        if tile_size < 1:
            raise ValueError(f"Expected 'tile_size' to be positive, got {tile_size}")
        self.slides = [in_hilbert_order(data) for data in slides]
        self.num_hops = num_hops
        self.tiles = [
            (i, core)
            for i, data in enumerate(self.slides)
            for core in tissue_tiles(data.tissue_of_cell, tile_size)
        ]
        self._structure: dict[int, TissueData] = {}

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> TissueData:
        slide, core = self.tiles[index]
        if index not in self._structure:
            self._structure[index] = cut_tile(self.slides[slide], core, self.num_hops)
        tile = self._structure[index].clone()
        return fill_tile(tile, self.slides[slide], slide)


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
    for key in ("depth", "pos", "niche", "core", "cell_index", "image", "image_mask"):
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
    )


def fill_tile(tile: TissueData, data: TissueData, slide: int) -> TissueData:
    """Put the features of its cells into a tile."""
    nodes = tile.node_index
    del tile.node_index
    rows = _take_rows(data.x, nodes)
    tile.x = rows if rows.layout is torch.strided else rows.to_dense()
    tile.gene_mask, tile.depth = data.gene_mask, data.depth[nodes]
    tile.slide = slide
    if "image" in data:
        tile.image, tile.image_mask = data.image[nodes], data.image_mask[nodes]
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


class EpochSampler(Sampler[int]):
    """A new order in every epoch that depends on seed and epoch alone, so that runs can resume."""

    def __init__(self, num_items: int, seed: int):
        self.num_items = num_items
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; called by the trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_items

    def __iter__(self) -> Iterator[int]:
        # drawn at the first item: a resumed trainer sets the epoch after it made the iterator
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        yield from torch.randperm(self.num_items, generator=generator).tolist()


class TileLoader(DataLoader[TissueData]):
    """Loader of tiles: each batch is one tile of one slide with its context.

    Args:
        slides: Whole slides, as :func:`~spatiagraph.data.to_data` makes them.
        tile_size: Core cells of a tile, at most.
        num_hops: Hops of the model over the cell graph.
        shuffle: New order in every epoch; in order of the slides otherwise.
        seed: Seed of the order.
        num_workers: Worker processes.

    Examples:
        >>> from spatiagraph.data import make_tissue, to_data
        >>> loader = TileLoader([to_data(make_tissue(500, image=None))], tile_size=300, num_hops=1)
        >>> sum(int(tile.core.sum()) for tile in loader)
        500
    """

    def __init__(
        self,
        slides: Sequence[TissueData],
        tile_size: int = 4096,
        num_hops: int = 1,
        *,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ):
        dataset = TileDataset(slides, tile_size, num_hops)
        super().__init__(
            dataset,
            batch_size=None,
            sampler=EpochSampler(len(dataset), seed) if shuffle else None,
            num_workers=num_workers,
            generator=torch.Generator().manual_seed(seed),  # else it draws from torch's own
        )
