"""Search for niches like a given one, on FAISS."""

from spatiagraph._lazy import attach

_NAMES = {
    "NicheIndex": "index",
    "SlideCalibration": "calibration",
    "in_region": "regions",
    "read_region": "regions",
    "select_rows": "selection",
}
_MODULES = (
    "allowed",
    "backend",
    "calibration",
    "conditions",
    "filters",
    "geojson",
    "grammar",
    "index",
    "regions",
    "searching",
    "selection",
    "slides",
    "storage",
    "vectors",
)
__all__ = [*_NAMES, *(m for m in _MODULES if m not in _NAMES)]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
