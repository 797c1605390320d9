"""The mathematics of transport: who becomes whom, along which path, integrated how.

No network in here, and nothing about cells.
"""

from spatiagraph._lazy import attach

_NAMES = {
    "Coupling": "coupling",
    "LinearPath": "path",
    "PathPoint": "path",
    "Solution": "solve",
    "couple": "coupling",
    "couple_many": "coupling",
    "guided": "solve",
    "integrate": "solve",
    "named_generator": "randomness",
    "named_rng": "randomness",
    "pair_cost": "coupling",
    "row_confidence": "coupling",
    "sample_times": "times",
    "skewed_times": "times",
    "transport_plan": "coupling",
    "uniform_grid": "times",
}
_MODULES = ("coupling", "path", "randomness", "solve", "times")
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
