"""What one batch teaches."""

from spatiagraph._lazy import attach

_NAMES = {
    "Annotation": "annotation",
    "ImageFlow": "image_flow",
    "LossOutput": "base",
    "MaskedGenes": "masked_genes",
    "MorphologyRegression": "morphology",
    "SpatiaPretraining": "spatia",
    "SpatiaWeights": "spatia",
    "Task": "base",
    "default_task": "defaults",
}
_MODULES = (
    "annotation",
    "base",
    "defaults",
    "image_flow",
    "masked_genes",
    "morphology",
    "niches",
    "spatia",
)
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
