"""``score_donor_images``: genes of each donor, predicted from images as remaining donors teach."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph.data.crops import CropSource
from spatiagraph.data.slide import Slide
from spatiagraph.evaluate import Cells, image_baselines, score_transfer_images
from spatiagraph.evaluate.donor_folds import Embed
from spatiagraph.inference.querying import embed_query
from spatiagraph.inference.zero_shot import ZeroShot

logger = logging.getLogger(__name__)

CROP_PX = 112
"""Side of the crops of baselines, in pixels."""
MAX_CELLS = 2000
"""Cells of a donor that are looked at, at most."""


def score_donor_images(
    models: Mapping[str, ZeroShot],
    slides: Sequence[Slide],
    cells: Cells,
    donor: NDArray[np.object_],
    *,
    window_um: float,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Score genes of each donor in turn, predicted from images by ridge on the remaining donors.

    Beside the baselines of images stand the embeddings of cells that models make of images, with no
    gene to read, where models read images.

    Args:
        models: Name of the embeddings of cells → models of training slides.
        slides: Slides, some without image; at least two donors have one.
        cells: Their cells, one after the other.
        donor: Donor of each cell, ``[N]``.
        window_um: Side of the window around a cell, in µm.
        seed: Seed of the cells that are looked at, 2,000 of a donor at most, and random weights.
        progress: Show progress bars.

    Returns:
        A row for each embedding and donor with images, as
        :func:`~spatiagraph.evaluate.score_transfer_images`.

    Raises:
        ValueError: A window does not fit on an image.
        UnscorableError: Fewer than two donors have images.
    """
    mask = _looked_at(slides, donor, seed)
    features: dict[str, Embed] = {}
    if all(slide.image is not None for slide in slides):
        train = donor != donor[0]
        features |= {
            name: _of_images(zero_shot)
            for name, zero_shot in models.items()
            if "image" in zero_shot.model(train).modalities
        }
    elif models:
        lacking = ", ".join(slide.slide_id for slide in slides if slide.image is None)
        logger.warning("Genes from images by models are left out: no image of %s", lacking)
    for name, z in _baselines(slides, mask, window_um, seed, progress).items():
        features[name] = _whatever_is_seen(z)
    return score_transfer_images(features, cells, donor, image_mask=mask, progress=progress)


def _whatever_is_seen(z: NDArray[np.float32]) -> Embed:
    """The same features for all training cells: nothing is learned."""
    return lambda train: z


def _of_images(zero_shot: ZeroShot) -> Embed:
    """Embeddings of cells made of images, from the mask of training cells."""

    def embed(train: NDArray[np.bool_]) -> NDArray[np.float32]:
        model = zero_shot.model(train)
        return np.concatenate([embed_query(model, s, "image")["cell"] for s in zero_shot.slides])

    return embed


def _looked_at(slides: Sequence[Slide], donor: NDArray[np.object_], seed: int) -> NDArray[np.bool_]:
    """Cells on an image, a sample of each donor, ``[N]``."""
    covered = [
        np.zeros(s.num_cells, dtype=bool) if s.image is None else s.image.covers(s.pos)
        for s in slides
    ]
    mask, rng = np.concatenate(covered), np.random.default_rng(seed)
    for name in pd.unique(donor):
        rows = np.flatnonzero(mask & (donor == name))
        mask[rng.permutation(rows)[MAX_CELLS:]] = False
    return mask


def _baselines(
    slides: Sequence[Slide],
    mask: NDArray[np.bool_],
    window_um: float,
    seed: int,
    progress: bool,
) -> dict[str, NDArray[np.float32]]:
    """Image features of the cells of the mask; NaN for the others, ``[N, F]``."""
    found: dict[str, NDArray[np.float32]] = {}
    start = 0
    for slide in slides:
        rows = np.flatnonzero(mask[start : start + slide.num_cells])
        if len(rows):
            crops = CropSource(slide, slide.pos[rows], window_um, CROP_PX)
            for name, z in image_baselines(crops, seed=seed, progress=progress).items():
                if name not in found:
                    found[name] = np.full((len(mask), z.shape[1]), np.nan, dtype=np.float32)
                found[name][start + rows] = z
        start += slide.num_cells
    return found
