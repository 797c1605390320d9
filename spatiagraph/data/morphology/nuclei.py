"""The nuclei of slides: measured, and read as images to learn from."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from spatiagraph.data.loader.pairs import inside_image, read_crops
from spatiagraph.data.masked import MaskedCrops
from spatiagraph.data.morphology.cellprofiler import cellprofiler_names, measure_cellprofiler
from spatiagraph.data.morphology.measure import MORPHOLOGY, measure_morphology
from spatiagraph.data.recipe import Crop
from spatiagraph.data.slide import Slide


def measure_nuclei(
    slide: Slide,
    crop: Crop = Crop(),
    *,
    foreground: Literal["bright", "dark", "mask"] = "bright",
    features: Literal["morphology", "cellprofiler"] = "morphology",
    among: NDArray[np.bool_] | None = None,
    chunk_size: int = 4096,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure the nucleus in the middle of the window around each cell.

    Args:
        slide: A slide with an image.
        crop: Windows around the cells.
        foreground: Whether nuclei are ``"bright"`` (DAPI) or ``"dark"`` (H&E), to be found anew;
            or ``"mask"``: what lies inside of the slide's outlines, of nuclei or of whole cells,
            whatever stain the image shows.
        features: The ten of :data:`~spatiagraph.data.MORPHOLOGY`, or the many of
            :func:`~spatiagraph.data.measure_cellprofiler`.
        among: Cells to measure, ``[N]``; all when not given.
        chunk_size: Crops in memory at a time; changes no result.
        progress: Show a progress bar.

    Returns:
        A row per cell, named as in ``obs``, as :func:`~spatiagraph.data.measure_morphology` or
        :func:`~spatiagraph.data.measure_cellprofiler` has it. A row is NaN where there is nothing
        to measure, where the window reaches beyond the image or an outline beyond its window, and
        for cells that are not selected.

    Raises:
        ValueError: There is no image, or it is smaller than a window, or there are no outlines
            with ``"mask"``, or the features are none of these.
    """
    if features not in ("morphology", "cellprofiler"):
        raise ValueError(f"Expected 'features' morphology or cellprofiler, got {features!r}")
    inside = inside_image(slide, crop)
    window_um = np.broadcast_to(crop.windows_um(slide), slide.num_cells)
    own = None
    if foreground == "mask":
        own = MaskedCrops(slide, window_um, crop.size_px, "cell")
        half = own.outlines.half_sides_um(slide.pos)  # NaN, and thus left out, without an outline
        inside = inside & (half <= window_um / 2 + own.image.mpp)
    rows = np.flatnonzero(inside if among is None else inside & among)
    measure, names = measure_morphology, list(MORPHOLOGY)
    if features == "cellprofiler":
        channels = [f"Ch{i + 1}" for i in range(read_crops(slide, rows[:0], crop).size(1))]
        measure, names = measure_cellprofiler, cellprofiler_names(channels)
    table = np.full((slide.num_cells, len(names)), np.nan)
    for start in track(
        range(0, len(rows), chunk_size),
        description=f"Measuring nuclei of {slide.slide_id}",
        disable=not progress,
        transient=True,
    ):
        part = rows[start : start + chunk_size]
        table[part] = measure(
            read_crops(slide, part, crop),
            mpp=window_um[part] / crop.size_px,
            foreground=foreground,
            masks=None if own is None else own.inside(part),
            component="center",
        ).to_numpy()
    return pd.DataFrame(table, slide.adata.obs_names, names)


def read_nuclei(
    slides: Sequence[Slide],
    features: Mapping[str, pd.DataFrame],
    crop: Crop = Crop(),
    *,
    max_cells: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Tensor, pd.DataFrame]:
    """Crops of the nuclei that could be measured, each with its row of features.

    Args:
        slides: Cohort with images of as many channels each.
        features: Slide id → :func:`measure_nuclei` of it, in the same windows.
        crop: Windows around the cells, of :math:`S` pixels.
        max_cells: So many of all slides, drawn at random; all when not given.
        seed: Of the draw.
        progress: Show a progress bar.

    Returns:
        Crops ``[M, C, S, S]`` in [0, 1], and a table of as many rows.

    Raises:
        ValueError: No nucleus could be measured.
    """
    valid = [features[s.slide_id].notna().all(axis=1).to_numpy() for s in slides]
    chosen = np.flatnonzero(np.concatenate(valid))
    if not len(chosen):
        raise ValueError(
            "Expected nuclei that can be measured, got none in the windows of all cells"
        )
    if max_cells is not None:
        chosen = np.random.default_rng(seed).permutation(chosen)[:max_cells]
    ends = np.cumsum([len(v) for v in valid])
    crops, tables = [], []
    for slide, start, end in zip(slides, [0, *ends[:-1]], ends, strict=True):
        rows = np.sort(chosen[(chosen >= start) & (chosen < end)]) - start
        crops.append(read_crops(slide, rows, crop, progress))
        tables.append(features[slide.slide_id].iloc[rows])
    return torch.cat(crops), pd.concat(tables)
