"""What one batch teaches."""

from spatiagraph._lazy import attach

_NAMES = {"LossOutput": "base", "MaskedGenes": "masked_genes", "Task": "base"}
_MODULES = ("base", "masked_genes")
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
