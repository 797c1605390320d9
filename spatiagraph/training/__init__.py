"""Lightning adapters, ``fit`` and ``embed``."""

from spatiagraph._lazy import attach

_NAMES = {
    "FitResult": "trainer",
    "MorphologyFit": "morphology",
    "GeneratedImages": "generating",
    "TaskModule": "module",
    "WarmAverage": "averaging",
    "embed": "embedding",
    "embed_data": "embedding",
    "embed_query": "querying",
    "effective_rank": "health",
    "encode_cells": "embedding",
    "fit": "fitting",
    "fit_generator": "generating",
    "generate": "generating",
    "fit_morphology": "morphology",
    "impute": "imputing",
    "train": "trainer",
}
_MODULES = (
    "averaging",
    "embedding",
    "fitting",
    "folder",
    "generating",
    "health",
    "imputing",
    "module",
    "morphology",
    "progress",
    "querying",
    "record",
    "trainer",
)
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
