"""Lightning adapters, ``fit`` and ``embed``."""

from spatiagraph._lazy import attach

_NAMES = {"FitResult": "fit", "TaskModule": "module", "embed": "embed", "fit": "fit"}
_MODULES = ("embed", "fit", "module", "progress")
__all__ = [*_NAMES, *(m for m in _MODULES if m not in _NAMES)]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
