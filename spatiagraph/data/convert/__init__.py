"""Slides → graphs for PyTorch Geometric, and embeddings back to AnnData."""

from spatiagraph.data.convert.embeddings import write_embeddings
from spatiagraph.data.convert.recipe import SlideToGraph
from spatiagraph.data.convert.slide_to_data import to_data
from spatiagraph.data.convert.tissue_data import TissueData, batched

__all__ = ["SlideToGraph", "TissueData", "batched", "to_data", "write_embeddings"]
