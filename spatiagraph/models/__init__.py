"""Models composed from the blocks of :mod:`spatiagraph.nn`."""

from spatiagraph._lazy import attach

_NAMES = {
    "ContextEncoder": "context_encoder",
    "ContextModel": "context",
    "Embeddings": "base",
    "SlideModel": "base",
    "Spatia": "spatia",
}
_MODULES = ("base", "context", "context_encoder", "spatia")
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
