"""Pre-training of SToFM."""

from spatiagraph.tasks.stofm.corruption import Chosen, SubSliceCorruption
from spatiagraph.tasks.stofm.task import Distances, HiddenCells, SToFMPretraining, SToFMView

__all__ = [
    "Chosen",
    "Distances",
    "HiddenCells",
    "SToFMPretraining",
    "SToFMView",
    "SubSliceCorruption",
]
