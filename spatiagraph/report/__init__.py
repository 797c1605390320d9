"""Reports: one HTML file that says what was run on what, and shows what came out."""

from spatiagraph._lazy import attach

_NAMES = {
    "Generation": "generation",
    "Report": "page",
    "cell_scatter": "scatter",
    "write_report": "compose",
}
_MODULES = ("compose", "generation", "niches", "page", "scatter", "sections", "style")
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
