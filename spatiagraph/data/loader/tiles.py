"""Tiles of neighbouring cells with the context they need."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset

from spatiagraph.data.convert.tissue_data import TissueData
from spatiagraph.data.loader.cutting import cut_tile, fill_tile, in_hilbert_order
from spatiagraph.data.loader.sampling import EpochSampler
from spatiagraph.graph.tiles import tissue_tiles


class Tiles(Protocol):
    """Some tiles by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> TissueData: ...


@runtime_checkable
class TileSource(Protocol):
    """Slides that hold tiles of their own, such as those of a store on disk."""

    def tiles(self, tile_size: int, num_hops: int) -> Tiles:
        """Tiles as :class:`TileDataset` cuts them.

        Args:
            tile_size: Core cells of a tile, at most.
            num_hops: Hops over ``edge_index`` of the model.

        Raises:
            ValueError: If there are none of that size, or with that much context.
        """


Prepared: TypeAlias = "Sequence[TissueData] | TileSource"
"""Slides as models learn from them: whole in memory, or as tiles of their own."""


def whole_slides(slides: Prepared, reader: str) -> Sequence[TissueData]:
    """Slides in memory.

    Args:
        slides: Slides, or what holds their tiles.
        reader: Name of what needs them whole.

    Raises:
        ValueError: They are tiles.
    """
    if isinstance(slides, TileSource):
        raise ValueError(
            f"Expected whole slides, from which {reader} makes batches of its own, got a cohort, "
            "which holds tiles: pass slides, such as those of list(cohort)"
        )
    return slides


class TileDataset(Dataset[TissueData]):
    """The tiles of some slides; item ``i`` is a tile with its context.

    Whole groups of the top level go into a tile, so that context is computed once per group;
    without levels, stretches of the Hilbert curve. A tile is complete: a model that looks
    ``num_hops`` hops over the cell graph, pools cells into the levels above and sends all of them
    back gives its core cells what it would give them on the whole slide.

    Args:
        slides: Whole slides, as :func:`~spatiagraph.data.to_data` makes them; cells that are not
            ``core`` are context alone.
        tile_size: Core cells of a tile, at most; a larger region is a tile of its own.
        num_hops: Hops over ``edge_index`` of the model.
    """

    def __init__(self, slides: Sequence[TissueData], tile_size: int, num_hops: int):
        if tile_size < 1:
            raise ValueError(f"Expected 'tile_size' to be positive, got {tile_size}")
        self.slides = [in_hilbert_order(data) for data in slides]
        self.num_hops = num_hops
        self.tiles = [
            (i, core) for i, data in enumerate(self.slides) for core in _tiles(data, tile_size)
        ]

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> TissueData:
        slide, core = self.tiles[index]
        # cut anew each time: the graphs of all tiles are larger than that of the slide
        tile = cut_tile(self.slides[slide], core, self.num_hops)
        return fill_tile(tile, self.slides[slide], slide)


class TileLoader(DataLoader[TissueData]):
    """Loader of tiles: each batch is one tile of one slide with its context.

    Args:
        slides: Whole slides, as :func:`~spatiagraph.data.to_data` makes them; or what holds their
            tiles, such as :class:`~spatiagraph.data.Cohort`.
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
        slides: Prepared,
        tile_size: int = 4096,
        num_hops: int = 1,
        *,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ):
        if isinstance(slides, TileSource):
            dataset: Any = slides.tiles(tile_size, num_hops)
        else:
            dataset = TileDataset(slides, tile_size, num_hops)
        super().__init__(
            dataset,
            batch_size=None,
            sampler=EpochSampler(len(dataset), seed) if shuffle else None,
            num_workers=num_workers,
            generator=torch.Generator().manual_seed(seed),  # else it draws from torch's own
        )


def _tiles(data: TissueData, tile_size: int) -> list[torch.Tensor]:
    """Core cells of each tile, those of the slide that count."""
    if not data.level_names:
        return list(data.core.nonzero().squeeze(1).split(tile_size))
    tiles = tissue_tiles(data.group_of_cell(data.level_names[-1]), tile_size)
    counting = [core[data.core[core]] for core in tiles]
    return [core for core in counting if core.numel()]
