"""Two regions of a pancreas that benchmarks learn from and are tested on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spatiagraph as sg
from spatiagraph.data import SlideImage

REGIONS = {"roi_tumour": (1900.0, 500.0), "roi_islet": (4700.0, 300.0)}
"""Folder of each, and where its image begins, in µm."""


def read_region(folder: Path, name: str, channels: Sequence[int], **options: Any) -> sg.Slide:
    """Cells of a region that have counts, with some of the four channels of its image.

    Args:
        folder: ``xenium_pancreas``.
        name: One of :data:`REGIONS`.
        channels: Of the image.
        **options: Of :func:`spatiagraph.read`.
    """
    file = folder / name / "morphology_c4_0.425um.ome.tif"
    return sg.read(
        folder / "cells_top.h5ad",
        image=SlideImage.open(file, origin_um=REGIONS[name], channels=list(channels)),
        crop_um="image",
        drop_empty=True,
        slide_id=name,
        **options,
    )
