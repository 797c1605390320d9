"""Genes and images in one space: neither looks at the other."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from spatiagraph.data import Slide, SlideImage, make_tissue
from spatiagraph.data.loader import TileLoader
from spatiagraph.evaluate import score_retrieval
from spatiagraph.inference import project_modalities
from spatiagraph.models import Spatia
from spatiagraph.models.spatia import TINY
from spatiagraph.tasks import Corruption, SpatiaPretraining, SpatiaWeights

SLIDE = make_tissue(300, num_types=4, num_genes=40, image="dapi", seed=0)
SMALL = replace(TINY, channels=16, gene_channels=16, gene_layers=1)
ZERO = dict.fromkeys(SpatiaWeights.__dataclass_fields__, 0.0)


@pytest.fixture(scope="module")
def model():
    return Spatia.for_slides([SLIDE], SMALL)


def with_image(pixels) -> Slide:
    image = SLIDE.image
    kept = {key: getattr(image, key) for key in ("mpp", "origin_um", "value_range")}
    return Slide(SLIDE.adata, SlideImage([pixels], **kept), slide_id="s", check=False)


def test_neither_modality_looks_at_the_other(model):
    images, genes = project_modalities(model, SLIDE, device="cpu")
    assert images.shape == genes.shape == (300, 16)
    pixels = SLIDE.image.pixels(slice(None), slice(None))
    others, same = project_modalities(model, with_image(pixels[::-1].copy()), device="cpu")
    np.testing.assert_allclose(same, genes, atol=1e-6)
    assert np.abs(others - images).max() > 1e-3
    adata = SLIDE.adata.copy()
    adata.X = adata.X[::-1].copy()
    swapped = Slide(adata, SLIDE.image, slide_id="s")
    same, others = project_modalities(model, swapped, device="cpu")
    np.testing.assert_allclose(same, images, atol=1e-6)
    assert np.abs(others - genes).max() > 1e-3


def test_tiles_change_nothing_and_cells_off_the_image_have_no_image(model):
    whole = project_modalities(model, SLIDE, device="cpu")
    tiled = project_modalities(model, SLIDE, tile_size=70, device="cpu")
    np.testing.assert_allclose(tiled[0], whole[0], atol=1e-5)
    np.testing.assert_allclose(tiled[1], whole[1], atol=1e-5)
    pixels = SLIDE.image.pixels(slice(None), slice(None))
    half = with_image(pixels[: len(pixels) // 2].copy())
    images, genes = project_modalities(model, half, device="cpu")
    off = ~half.image.covers(half.pos)
    assert 0 < off.sum() < 300
    assert np.isnan(images[off]).all()
    assert np.isfinite(images[~off]).all()
    assert np.isfinite(genes).all()
    table = score_retrieval({"z": (images, genes)}, np.where(off, -1, 0))
    alone = score_retrieval({"z": (images[~off], genes[~off])})
    pd.testing.assert_frame_equal(table, alone)
    assert table["num_cells"].tolist() == [300 - off.sum()] * 4


def test_they_are_what_the_objective_compares(model):
    """The contrast of the projections, computed outside, is the term of the task."""
    weights = SpatiaWeights(**{**ZERO, "cross_modal": 1.0})
    whole = Corruption(thin_rate=0, drop_image=0, drop_genes=0, value_ratio=0, mask_ratio=0)
    task = SpatiaPretraining(model, weights, corruption=whole).eval()
    (tile,) = TileLoader([model.recipe(SLIDE)], SLIDE.num_cells, 0)
    with torch.no_grad():
        found = float(task.loss(tile, torch.Generator().manual_seed(0)).loss)
    image, genes = (
        z / np.linalg.norm(z, axis=1, keepdims=True)
        for z in project_modalities(model, SLIDE, device="cpu")
    )
    chance = np.exp((genes @ image.T) / 0.07)
    own = np.diag(chance)
    expected = -(np.log(own / chance.sum(0)) + np.log(own / chance.sum(1))).mean() / 2
    assert found == pytest.approx(expected, rel=1e-3)
    table = score_retrieval({"z": (image, genes)})
    assert table.loc["z", "num_cells"].tolist() == [300, 300]


def test_slides_and_models_without_images_are_refused(model):
    bare = make_tissue(100, num_genes=40, image=None)
    with pytest.raises(ValueError, match="an image with slide"):
        project_modalities(model, bare)
    genes = Spatia.for_slides([bare], SMALL)
    with pytest.raises(ValueError, match="both genes and images"):
        project_modalities(genes, SLIDE, device="cpu")
