"""SPATIA: the task, its objectives, and what they look at."""

from spatiagraph.tasks.spatia.binned import BinnedPretraining, BinnedView, BinnedWeights
from spatiagraph.tasks.spatia.corruption import Corruption
from spatiagraph.tasks.spatia.task import SpatiaPretraining, SpatiaWeights, spatia_objectives
from spatiagraph.tasks.spatia.view import SpatiaView

__all__ = [
    "BinnedPretraining",
    "BinnedView",
    "BinnedWeights",
    "Corruption",
    "SpatiaPretraining",
    "SpatiaView",
    "SpatiaWeights",
    "spatia_objectives",
]
