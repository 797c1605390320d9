"""A flow that generates images of cells from what is known of them.

As a pipeline of diffusers it is :class:`~spatiagraph.models.CellImagePipeline`.
"""

from spatiagraph.models.generator.model import PRESETS, ImageGenerator

__all__ = ["PRESETS", "ImageGenerator"]
