"""Shape and stain of nuclei: of one in each crop, and of those of slides."""

from spatiagraph.data.morphology.cellprofiler import cellprofiler_names, measure_cellprofiler
from spatiagraph.data.morphology.measure import MORPHOLOGY, measure_morphology
from spatiagraph.data.morphology.nuclei import measure_nuclei, read_nuclei

__all__ = [
    "MORPHOLOGY",
    "cellprofiler_names",
    "measure_cellprofiler",
    "measure_morphology",
    "measure_nuclei",
    "read_nuclei",
]
