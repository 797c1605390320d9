"""SPATIA: the model, the parts it is made of, and its sizes."""

from spatiagraph.models.spatia.build import SpatiaParts, spatia_parts, spatia_recipe
from spatiagraph.models.spatia.heads import SpatiaHeads
from spatiagraph.models.spatia.model import Spatia
from spatiagraph.models.spatia.presets import spatia, spatia_base, spatia_small, spatia_tiny
from spatiagraph.models.spatia.size import BASE, SIZES, SMALL, TINY, SpatiaSize

__all__ = [
    "BASE",
    "SIZES",
    "SMALL",
    "TINY",
    "Spatia",
    "SpatiaHeads",
    "SpatiaParts",
    "SpatiaSize",
    "spatia",
    "spatia_base",
    "spatia_parts",
    "spatia_recipe",
    "spatia_small",
    "spatia_tiny",
]
