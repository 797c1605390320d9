"""SToFM: the model, how it cuts slides, and its sizes."""

from spatiagraph.models.stofm.heads import SToFMHeads
from spatiagraph.models.stofm.loader import SubSliceLoader
from spatiagraph.models.stofm.model import SToFM
from spatiagraph.models.stofm.published import as_published, from_published
from spatiagraph.models.stofm.size import BASE, SIZES, TINY, SToFMSize
from spatiagraph.models.stofm.slices import SubSlices, Virtual, VirtualCells

__all__ = [
    "BASE",
    "SIZES",
    "TINY",
    "SToFM",
    "SToFMHeads",
    "SToFMSize",
    "SubSliceLoader",
    "SubSlices",
    "Virtual",
    "VirtualCells",
    "as_published",
    "from_published",
]
