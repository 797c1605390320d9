"""Tiles of a slide on the disk: one array of bytes each, read by number."""

import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from spatiagraph._reasons import reason
from spatiagraph.data.cohort.layout import CHUNK_BYTES, ROOT, TILES, codecs
from spatiagraph.data.cohort.packing import StoredTile, unpack
from spatiagraph.data.convert.tissue_data import TissueData
from spatiagraph.data.loader.cutting import cut_tile, fill_tile, whole_tile
from spatiagraph.data.recipe import Recipe

DAMAGED = (OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError)
"""Errors of zarr and its codecs on metadata and chunks that are not as they were written."""


class TileStore(NamedTuple):
    """Store of the tiles of a slide.

    Attributes:
        folder: Folder of the slide.
        slide_id: Name of the slide.
        source_hash: Hash of the slide that they are of.
        num_tiles: Number of tiles.
    """

    folder: Path
    slide_id: str
    source_hash: str
    num_tiles: int

    def read(self, number: int) -> StoredTile:
        """A tile with all its context.

        Args:
            number: Number of the tile.

        Raises:
            ValueError: It is missing, damaged, or of another slide; the file is named.
        """
        place = self.folder / TILES / str(number)
        shard = place / "c" / "0"
        mend = f"restore it, or replace slide {self.slide_id!r} of the cohort"
        if not shard.is_file() or not (place / ROOT).is_file():  # zarr would take it for zeros
            raise ValueError(f"Expected a tile at {str(shard)!r}, found none: {mend}")
        try:
            packed = _bytes(place)
            tile = unpack(packed)
        except DAMAGED as err:
            raise ValueError(
                f"Expected {str(shard)!r} as it was written, found it damaged ({reason(err)}): "
                f"{mend}"
            ) from err
        if (tile.notes.source, tile.notes.tile) != (self.source_hash, number):
            raise ValueError(
                f"Expected tile {number} of slide {self.slide_id!r} at {str(shard)!r}, found tile "
                f"{tile.notes.tile} of another: {mend}"
            )
        return tile


def write_tile(folder: Path, number: int, packed: bytes) -> None:
    """Write a tile; it is there once it is whole.

    Args:
        folder: Folder of the slide.
        number: Number of the tile.
        packed: Its bytes.
    """
    import zarr

    place = folder / TILES / str(number)
    new = place.with_name(f".{number}.new")
    if new.exists():
        shutil.rmtree(new)
    shards = (max(1, -(-len(packed) // CHUNK_BYTES)) * CHUNK_BYTES,)
    array = zarr.create_array(
        new,
        shape=(len(packed),),
        dtype="u1",
        chunks=(CHUNK_BYTES,),
        shards=shards,
        compressors=codecs(),
        zarr_format=3,
    )
    array[:] = np.frombuffer(packed, dtype=np.uint8)
    os.replace(new, place)


def has_tile(folder: Path, number: int) -> bool:
    """Check that a tile was written."""
    return (folder / TILES / str(number) / "c" / "0").is_file()


def is_shard(name: str) -> bool:
    """Check that a file, by path in the folder of a slide, holds a tile."""
    return name.startswith(f"{TILES}/") and name.endswith("/c/0")


class StoredTiles(Dataset[TissueData]):
    """Tiles of stored slides; item ``i`` is a tile with its context, read on access.

    Equal to :class:`~spatiagraph.data.loader.TileDataset` of the slides in memory; crops are
    rounded to one byte a value.

    Args:
        stores: The slides, in order.
        recipe: How they were prepared.
        num_hops: Hops over the cell graph that a tile is to hold.
        whole: Whether tiles hold just so many.
        cores: For each slide which of its cells count, ``[N]`` bool by their rows in the slide that
            was given, and the tile of each cell; all of them count when not given.
    """

    def __init__(
        self,
        stores: Sequence[TileStore],
        recipe: Recipe,
        num_hops: int,
        *,
        whole: bool = True,
        cores: Sequence[tuple[Tensor, Tensor]] | None = None,
    ):
        self.stores = list(stores)
        self.num_hops = num_hops
        self.whole = whole and cores is None
        self.cores = None if cores is None else [core for core, _ in cores]
        self.tokenizer = None if recipe.tokens is None else recipe.tokens.reading(recipe.panel)
        self.numbers = [
            (slide, number)
            for slide, store in enumerate(self.stores)
            for number in (
                range(store.num_tiles)
                if cores is None
                else cores[slide][1][cores[slide][0]].unique().tolist()
            )
        ]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> TissueData:
        slide, number = self.numbers[index]
        data = self.stores[slide].read(number).data
        data.tokenizer = self.tokenizer
        if self.cores is not None:
            data.core &= self.cores[slide][data.cell_index]
        if self.whole:
            tile = whole_tile(data)
        else:
            tile = cut_tile(data, data.core.nonzero().squeeze(1), self.num_hops)
        return fill_tile(tile, data, slide)


def _bytes(place: Path) -> bytes:
    import zarr

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="zarr")
        array = zarr.open_array(place, mode="r", zarr_format=3)
    if array.dtype != np.uint8 or array.ndim != 1:
        raise ValueError(f"expected an array of bytes, got {array.dtype} {list(array.shape)}")
    return np.asarray(array[:]).tobytes()
