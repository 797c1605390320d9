"""From embeddings to answers."""

from spatiagraph._lazy import attach

_NAMES = {
    "ExpressionHead": "expression",
    "LabelHead": "label",
    "TokenExpressionHead": "token_expression",
}
_MODULES = ("expression", "label", "token_expression")
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
