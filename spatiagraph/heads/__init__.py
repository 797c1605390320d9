"""From embeddings to answers."""

from spatiagraph._lazy import attach

_NAMES = {
    "CellImagePipeline": "pipeline",
    "ExpressionHead": "expression",
    "ImageGenerator": "image",
    "LabelHead": "label",
    "Signature": "pair",
    "TokenExpressionHead": "token_expression",
    "Transition": "pair",
    "as_transitions": "pair",
    "gene_signature": "pair",
    "morphology_signature": "pair",
    "pair_niches": "pair",
    "pair_states": "pair",
}
_MODULES = ("expression", "image", "label", "pair", "pipeline", "token_expression")
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
