"""Pre-training of SToFM."""

from spatiagraph.tasks.stofm.corruption import PUBLISHED_CORRUPTION, Chosen, SubSliceCorruption
from spatiagraph.tasks.stofm.task import Distances, HiddenCells, SToFMPretraining, SToFMView

__all__ = [
    "PUBLISHED_CORRUPTION",
    "Chosen",
    "Distances",
    "HiddenCells",
    "SToFMPretraining",
    "SToFMView",
    "SubSliceCorruption",
]
