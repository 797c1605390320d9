"""Mini-batches of tissue: tiles of neighbouring cells with the context they need."""

from spatiagraph.data.loader.cutting import cut_tile, fill_tile, in_hilbert_order
from spatiagraph.data.loader.sampling import EpochSampler
from spatiagraph.data.loader.tiles import TileDataset, TileLoader

__all__ = [
    "EpochSampler",
    "TileDataset",
    "TileLoader",
    "cut_tile",
    "fill_tile",
    "in_hilbert_order",
]
