"""From embeddings to images of cells."""

from spatiagraph.heads.image.generator import PRESETS, ImageGenerator

__all__ = ["PRESETS", "ImageGenerator"]
