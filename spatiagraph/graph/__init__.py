"""Cells → graph. Pure functions of positions; no parameters."""

from spatiagraph._lazy import attach

_NAMES = {
    "knn_graph": "build",
    "radius_graph": "build",
    "delaunay_graph": "build",
    "grid_graph": "build",
    "grid_niches": "hierarchy",
    "neighborhood_niches": "hierarchy",
    "kd_parts": "hierarchy",
    "label_niches": "hierarchy",
    "cluster_niches": "hierarchy",
    "hilbert_order": "order",
}
_MODULES = ("augment", "build", "encode", "hierarchy", "order", "tiles")
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
