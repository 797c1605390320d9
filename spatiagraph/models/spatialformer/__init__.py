"""SpatialFormer: ranked genes of one cell or two neighbours, from molecules to pairs of cells."""

from spatiagraph.models.spatialformer.model import Readout, SpatialFormer
from spatiagraph.models.spatialformer.presets import spatialformer_base, spatialformer_tiny
from spatiagraph.models.spatialformer.vocabulary import (
    METADATA,
    spatialformer_recipe,
    spatialformer_vocabulary,
)

__all__ = [
    "METADATA",
    "Readout",
    "SpatialFormer",
    "spatialformer_base",
    "spatialformer_recipe",
    "spatialformer_tiny",
    "spatialformer_vocabulary",
]
