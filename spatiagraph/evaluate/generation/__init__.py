"""Generated images against real ones, through features of both.

Every score says on how many images it stands.
"""

from spatiagraph.evaluate.generation.distances import (
    MIN_FRECHET,
    frechet_distance,
    kernel_distance,
)
from spatiagraph.evaluate.generation.morphology_score import score_morphology
from spatiagraph.evaluate.generation.score import score_generation

__all__ = [
    "MIN_FRECHET",
    "frechet_distance",
    "kernel_distance",
    "score_generation",
    "score_morphology",
]
