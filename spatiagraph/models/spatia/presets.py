"""SPATIA ready made, in three sizes or one's own."""

from typing import Any

from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import Recipe
from spatiagraph.models.spatia.build import spatia_parts
from spatiagraph.models.spatia.model import Spatia
from spatiagraph.models.spatia.size import BASE, SMALL, TINY, SpatiaSize


def spatia(recipe: Recipe | GenePanel, size: SpatiaSize = BASE, **options: Any) -> Spatia:
    """SPATIA of a size.

    Args:
        recipe: How a slide becomes a graph; a panel stands for the published recipe of it.
        size: Widths and depths.
        **options: Parts and options of :func:`~spatiagraph.models.spatia.spatia_parts`.

    Raises:
        ValueError: If neither genes nor images are read, or parts do not fit together.
    """
    parts = spatia_parts(recipe, size, **options)
    return Spatia(*parts, likelihood=options.get("likelihood", "zinb"))


def spatia_tiny(recipe: Recipe | GenePanel, **options: Any) -> Spatia:
    """SPATIA for tests and laptops without GPU; options as for :func:`spatia`."""
    return spatia(recipe, TINY, **options)


def spatia_small(recipe: Recipe | GenePanel, **options: Any) -> Spatia:
    """SPATIA for one GPU; options as for :func:`spatia`."""
    return spatia(recipe, SMALL, **options)


def spatia_base(recipe: Recipe | GenePanel, **options: Any) -> Spatia:
    """SPATIA of the published size: gene encoder of 8 × 256, ViT-B/16, 512 channels."""
    return spatia(recipe, BASE, **options)
