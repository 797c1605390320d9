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
from spatiagraph.data.morphology.measure import MORPHOLOGY, measure_morphology
from spatiagraph.data.slide import Slide


def measure_nuclei(
    slide: Slide,
    *,
    window_um: float = 13.6,
    size_px: int = 32,
    foreground: Literal["bright", "dark"] = "bright",
    among: NDArray[np.bool_] | None = None,
    chunk_size: int = 4096,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure the nucleus in the middle of the window around each cell.

    Args:
        slide: A slide with an image.
        window_um: Side of the window in µm.
        size_px: Side of the window in pixels as it is measured.
        foreground: Whether nuclei are ``"bright"`` (DAPI) or ``"dark"`` (H&E).
        among: Cells to measure, ``[N]``; all when not given.
        chunk_size: Crops in memory at a time; changes no result.
        progress: Show a progress bar.

    Returns:
        A row per cell, named as in ``obs``, of :data:`~spatiagraph.data.MORPHOLOGY` as
        :func:`~spatiagraph.data.measure_morphology` has it. A row is NaN where there is nothing to
        measure, where the window reaches beyond the image and for cells that are not selected.

    Raises:
        ValueError: There is no image, or it is smaller than a window.
    """
    inside = inside_image(slide, window_um)
    rows = np.flatnonzero(inside if among is None else inside & among)
    table = np.full((slide.num_cells, len(MORPHOLOGY)), np.nan)
    for start in track(
        range(0, len(rows), chunk_size),
        description=f"Measuring nuclei of {slide.slide_id}",
        disable=not progress,
        transient=True,
    ):
        part = rows[start : start + chunk_size]
        table[part] = measure_morphology(
            read_crops(slide, part, window_um, size_px),
            mpp=window_um / size_px,
            foreground=foreground,
            component="center",
        ).to_numpy()
    return pd.DataFrame(table, slide.adata.obs_names, list(MORPHOLOGY))


def read_nuclei(
    slides: Sequence[Slide],
    features: Mapping[str, pd.DataFrame],
    *,
    window_um: float = 13.6,
    size_px: int = 32,
    max_cells: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> tuple[Tensor, pd.DataFrame]:
    """Crops of the nuclei that could be measured, each with its row of features.

    Args:
        slides: Cohort with images of as many channels each.
        features: Slide id → :func:`measure_nuclei` of it, in the same window.
        window_um: Side of the window in µm.
        size_px: Side of the crops in pixels, :math:`S`.
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
        crops.append(read_crops(slide, rows, window_um, size_px, progress))
        tables.append(features[slide.slide_id].iloc[rows])
    return torch.cat(crops), pd.concat(tables)
