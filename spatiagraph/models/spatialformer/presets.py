"""SpatialFormer ready made, in two sizes."""

from typing import Any

from spatiagraph.data.recipe import Recipe
from spatiagraph.models.spatialformer.model import SpatialFormer
from spatiagraph.models.spatialformer.size import BASE, TINY


def spatialformer_tiny(recipe: Recipe, **options: Any) -> SpatialFormer:
    """SpatialFormer for tests and laptops without GPU; options as of the class."""
    return SpatialFormer(recipe, **{**TINY, **options})


def spatialformer_base(recipe: Recipe, **options: Any) -> SpatialFormer:
    """SpatialFormer of the published size, 53 million parameters; options as of the class."""
    return SpatialFormer(recipe, **{**BASE, **options})
