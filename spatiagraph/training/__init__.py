"""Lightning adapters, ``fit`` and ``embed``."""

from spatiagraph._lazy import attach

_NAMES = {
    "FitResult": "trainer",
    "MorphologyFit": "morphology",
    "GeneratedImages": "generated",
    "TaskModule": "module",
    "TransitionFit": "transitions",
    "TransitionScores": "transition_scores",
    "WarmAverage": "averaging",
    "embed": "embedding",
    "embed_data": "embedding",
    "embed_query": "querying",
    "effective_rank": "health",
    "encode_cells": "embedding",
    "fit": "fitting",
    "fit_generator": "generating",
    "fit_transitions": "transitions",
    "generate": "generating",
    "fit_morphology": "morphology",
    "impute": "imputing",
    "score_transitions": "transition_scores",
    "train": "trainer",
    "transplant": "transplanting",
}
_MODULES = (
    "averaging",
    "devices",
    "embedding",
    "fitting",
    "folder",
    "generated",
    "generating",
    "health",
    "imputing",
    "module",
    "morphology",
    "progress",
    "querying",
    "record",
    "trainer",
    "transition_scores",
    "transitions",
    "transplanting",
)
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
