"""Folds whose two sides share nothing: by donor, by slide, by block of tissue.

A random split puts a cell's neighbours on the other side, and scores what was copied from them.
"""

from spatiagraph.data.splits.blocks import spatial_blocks
from spatiagraph.data.splits.folds import Folds, neighbor_distance_um
from spatiagraph.data.splits.groups import split_by_donor, split_by_slide
from spatiagraph.data.splits.leaks import away_from, check_no_leak

__all__ = [
    "Folds",
    "away_from",
    "check_no_leak",
    "neighbor_distance_um",
    "spatial_blocks",
    "split_by_donor",
    "split_by_slide",
]
