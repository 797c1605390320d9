"""Flow-matching generator of images of cells, conditioned on embeddings and transitions.

As a pipeline of diffusers it is :class:`~spatiagraph.models.CellImagePipeline`.
"""

from spatiagraph.models.generator.model import ImageGenerator
from spatiagraph.models.generator.size import BASE, SIZES, SMALL, TINY, GeneratorSize

__all__ = ["BASE", "SIZES", "SMALL", "TINY", "GeneratorSize", "ImageGenerator"]
