"""Search for niches like a given one, on FAISS."""

from spatiagraph._lazy import attach

_NAMES = {"NicheIndex": "index"}
_MODULES = ("backend", "filters", "index", "storage", "vectors")
__all__ = [*_NAMES, *(m for m in _MODULES if m not in _NAMES)]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
