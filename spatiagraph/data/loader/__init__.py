"""Mini-batches of tissue: tiles with all their context, whole niches of a cohort, pairs."""

from spatiagraph.data.loader.chunks import class_weights
from spatiagraph.data.loader.cutting import (
    cut_tile,
    fill_tile,
    in_hilbert_order,
    rows_of,
    whole_tile,
)
from spatiagraph.data.loader.hierarchical import HierarchicalLoader, NicheBatches, RegionDataset
from spatiagraph.data.loader.neighbor_pairs import (
    NeighborPairLoader,
    NeighborPairs,
    PairSource,
)
from spatiagraph.data.loader.pairs import (
    PairBatch,
    PairLoader,
    inside_image,
    pairs_of_cells,
    read_crops,
)
from spatiagraph.data.loader.region_sampler import RegionSampler
from spatiagraph.data.loader.sampling import EpochSampler, epoch_order
from spatiagraph.data.loader.strata import StrataLoader, StrataSampler
from spatiagraph.data.loader.tiles import (
    Prepared,
    TileDataset,
    TileLoader,
    TileSource,
    whole_slides,
)

__all__ = [
    "EpochSampler",
    "HierarchicalLoader",
    "NeighborPairLoader",
    "NeighborPairs",
    "NicheBatches",
    "PairBatch",
    "PairLoader",
    "PairSource",
    "Prepared",
    "RegionDataset",
    "RegionSampler",
    "StrataLoader",
    "StrataSampler",
    "TileDataset",
    "TileLoader",
    "TileSource",
    "class_weights",
    "cut_tile",
    "epoch_order",
    "fill_tile",
    "in_hilbert_order",
    "inside_image",
    "pairs_of_cells",
    "read_crops",
    "rows_of",
    "whole_slides",
    "whole_tile",
]
