"""Graph-native, modular toolkit for spatial transcriptomics.

Cells are graph nodes that carry genes, image and place; niches and tissue are pooled from them.
Importing does no work: sub-packages load when first used.
"""

from spatiagraph._lazy import attach

__version__ = "0.1.0"

_NAMES = {
    "read": "data.read",
    "write": "data.writing",
    "make_tissue": "data.synthetic",
    "Slide": "data.slide",
    "SlideImage": "data.image",
    "GenePanel": "data.panel",
    "to_data": "data.convert",
    "NicheIndex": "retrieval",
    "fit": "training.fitting",
    "embed": "training.embedding",
    "generate": "training.generating",
}
_MODULES = (
    "data",
    "flow",
    "graph",
    "kernels",
    "nn",
    "models",
    "heads",
    "losses",
    "tasks",
    "training",
    "evaluate",
    "keys",
    "plot",
    "report",
    "retrieval",
    "testing",
)
__all__ = ["__version__", *_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
