"""SPATIA: the model, the parts it is made of, and its sizes."""

from spatiagraph.models.spatia.model import Spatia
from spatiagraph.models.spatia.presets import PRESETS

__all__ = ["PRESETS", "Spatia"]
