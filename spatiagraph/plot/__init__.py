"""Pictures in the manner of scanpy and squidpy: ``ax=`` to draw into, ``save=`` to write a file."""

from spatiagraph._lazy import attach

_NAMES = {
    "PALETTE": "colors",
    "category_colors": "colors",
    "gallery": "galleries",
    "hierarchy": "levels",
    "protocol_bars": "curves",
    "score_bars": "curves",
    "spatial": "maps",
    "training_curve": "curves",
    "training_curves": "curves",
    "transition_gallery": "galleries",
}
_MODULES = ("canvas", "colors", "curves", "galleries", "levels", "maps")
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
