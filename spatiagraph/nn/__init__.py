"""Learned blocks. Tensors in, tensors out."""

from spatiagraph._lazy import attach

_NAMES = {
    "AttentionPool": "pool",
    "CellEncoder": "cell",
    "ConcatFusion": "fusion",
    "Configurable": "config",
    "CrossModalFusion": "fusion",
    "EdgeEncoding": "encoding",
    "GateFusion": "fusion",
    "GeneEncoder": "genes",
    "GraphTransformer": "transformer",
    "GraphTransformerLayer": "transformer",
    "ImageEncoder": "image",
    "NichePool": "pool",
    "PyGPool": "pool",
    "TissuePool": "pool",
    "TopDown": "top_down",
}
_MODULES = (
    "cell",
    "config",
    "encoding",
    "fusion",
    "genes",
    "image",
    "pool",
    "top_down",
    "transformer",
)
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
