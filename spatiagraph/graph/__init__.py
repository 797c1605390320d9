"""Cells → graph. Pure functions of positions; no parameters."""

from spatiagraph._lazy import attach

_NAMES = {
    "knn_graph": "build",
    "radius_graph": "build",
    "delaunay_graph": "build",
    "grid_graph": "build",
    "group_graph": "build",
    "grid_niches": "hierarchy",
    "grid_patches": "hierarchy",
    "neighborhood_niches": "hierarchy",
    "kd_parts": "hierarchy",
    "sub_slices": "hierarchy",
    "label_niches": "hierarchy",
    "cluster_niches": "hierarchy",
    "niche_positions": "hierarchy",
    "hilbert_order": "order",
    "k_hop": "tiles",
    "tile_context": "tiles",
    "tissue_tiles": "tiles",
    "distance_rbf": "encode",
    "edge_direction": "encode",
    "normalize_positions": "encode",
    "position_encoding": "encode",
}
_MODULES = ("build", "encode", "hierarchy", "order", "points", "tiles")
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
