"""Lightning adapters, ``fit`` and ``embed``."""

from spatiagraph._lazy import attach

_NAMES = {
    "FitResult": "fitting",
    "TaskModule": "module",
    "embed": "embedding",
    "embed_data": "embedding",
    "encode_cells": "embedding",
    "fit": "fitting",
    "impute": "imputing",
}
_MODULES = ("embedding", "fitting", "imputing", "module", "progress", "record")
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
