"""Cells → niches → tissue: assignments of cells to larger units.

An assignment is an integer per cell (``grid_niches``, ``kd_parts``, ``sub_slices``,
``label_niches``, ``cluster_niches``) or, where niches overlap, an ``EdgeIndex`` cells → niches
(``neighborhood_niches``). Anything that yields either can take their place.
"""

from spatiagraph.graph.hierarchy.grid import GridPatches, grid_niches, grid_patches
from spatiagraph.graph.hierarchy.labels import cluster_niches, label_niches
from spatiagraph.graph.hierarchy.neighborhood import neighborhood_niches
from spatiagraph.graph.hierarchy.parts import kd_parts, sub_slices
from spatiagraph.graph.hierarchy.positions import niche_positions
from spatiagraph.graph.hierarchy.regions import region_of

__all__ = [
    "GridPatches",
    "cluster_niches",
    "grid_niches",
    "grid_patches",
    "kd_parts",
    "label_niches",
    "neighborhood_niches",
    "niche_positions",
    "region_of",
    "sub_slices",
]
