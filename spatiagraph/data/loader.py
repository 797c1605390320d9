"""Mini-batches of tissue: tiles of neighbouring cells with the context they need."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch_geometric import EdgeIndex

from spatiagraph.data.convert import TissueData
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
        self.slides = list(slides)
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
    tile.x = _dense_rows(data.x, nodes)
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


def _dense_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of a dense or sparse CSR matrix, dense."""
    if x.layout is torch.strided:
        return x[rows]
    ptr, column, value = x.crow_indices(), x.col_indices(), x.values()
    start, count = ptr[rows], ptr[rows + 1] - ptr[rows]
    offset = torch.arange(int(count.sum())) - (count.cumsum(0) - count).repeat_interleave(count)
    entry = start.repeat_interleave(count) + offset
    row = torch.arange(rows.numel()).repeat_interleave(count)
    dense = value.new_zeros(rows.numel(), x.size(1))
    dense[row, column[entry]] = value[entry]
    return dense


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
