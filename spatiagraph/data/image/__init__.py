"""Microscope images addressed in µm: formats, pyramid levels, crops around cells."""

from spatiagraph.data.image.held import HELD
from spatiagraph.data.image.slide_image import SlideImage

__all__ = ["HELD", "SlideImage"]
