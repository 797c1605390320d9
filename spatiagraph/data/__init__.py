"""Raw slides → cells. Knows files and AnnData; nothing here is learned."""

from spatiagraph._lazy import attach

_NAMES = {
    "Slide": "slide",
    "SlideImage": "image",
    "GenePanel": "panel",
    "LabelSet": "labels",
    "TissueData": "convert",
    "to_data": "convert",
    "TileLoader": "loader",
    "HierarchicalLoader": "loader",
    "PairLoader": "loader",
    "MORPHOLOGY": "morphology",
    "make_tissue": "synthetic",
    "measure_morphology": "morphology",
    "measure_nuclei": "nuclei",
    "pairs_of_cells": "loader",
    "read_nuclei": "nuclei",
    "write": "writing",
}
_MODULES = (
    "convert",
    "image",
    "labels",
    "loader",
    "morphology",
    "nuclei",
    "panel",
    "read",
    "slide",
    "splits",
    "synthetic",
    "tokens",
    "transcripts",
    "units",
    "writing",
)
__all__ = [*_NAMES, *_MODULES]
__getattr__, __dir__ = attach(__name__, _MODULES, _NAMES)
