"""Lightning adapters, ``fit`` and ``embed``."""

from spatiagraph._lazy import attach

_NAMES = {"FitResult": "fitting", "TaskModule": "module", "embed": "embedding", "fit": "fitting"}
_MODULES = ("embedding", "fitting", "module", "progress", "record")
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
