"""ST-Align: the model, the parts it is made of, and its sizes."""

from spatiagraph.models.st_align.build import st_align_parts, st_align_recipe
from spatiagraph.models.st_align.model import STAlign
from spatiagraph.models.st_align.scale import Alignment, Branch, Scale, Views
from spatiagraph.models.st_align.size import BASE, SIZES, TINY, STAlignSize

__all__ = [
    "BASE",
    "SIZES",
    "TINY",
    "Alignment",
    "Branch",
    "STAlign",
    "STAlignSize",
    "Scale",
    "Views",
    "st_align_parts",
    "st_align_recipe",
]
