"""From embeddings to answers."""

from spatiagraph._lazy import attach

_NAMES = {"ExpressionHead": "expression"}
_MODULES = ("expression",)
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
