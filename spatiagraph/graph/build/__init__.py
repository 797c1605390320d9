"""Cells → edges: nearest neighbours, radius, Delaunay, capture lattices and whole groups.

Every builder returns an ``EdgeIndex`` of messages source → target, sorted by target and then by
source, and never joins cells of different sections.
"""

from spatiagraph.graph.build.delaunay import delaunay_graph
from spatiagraph.graph.build.group import group_graph
from spatiagraph.graph.build.knn import knn_graph
from spatiagraph.graph.build.lattice import grid_graph
from spatiagraph.graph.build.radius import radius_graph

__all__ = ["delaunay_graph", "grid_graph", "group_graph", "knn_graph", "radius_graph"]
