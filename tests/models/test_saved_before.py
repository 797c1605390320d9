"""Models that were saved before keep loading, and give what they gave.

``data/saved_models`` holds a folder per model, trained for an epoch, every gate open: what
``save_pretrained`` wrote, and the embeddings of the first cells of the tissue below. They are
never written anew: a change of a model brings a way to read them.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from spatiagraph.data import make_tissue
from spatiagraph.flow import Sampling
from spatiagraph.inference import embed_data, generate
from spatiagraph.models import ContextModel, ImageGenerator, Spatia
from spatiagraph.nn import MorphologyProfile

SAVED = Path(__file__).parents[1] / "data" / "saved_models"
MODELS = {
    "context": (ContextModel, None),
    "context_image": (ContextModel, "he"),
    "spatia": (Spatia, "he"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_saved_before_embeds_as_it_did(name):
    cls, image = MODELS[name]
    slide = make_tissue(120, num_genes=24, num_types=4, num_niches=3, image=image, seed=7)
    model = cls.from_pretrained(SAVED / name)
    got = embed_data(model, model.recipe(slide), tile_size=50, device="cpu")
    with np.load(SAVED / name / "embeddings.npz") as expected:
        assert sorted(expected) == sorted(got)
        for level in expected:
            np.testing.assert_allclose(got[level][:40], expected[level], rtol=1e-6, atol=1e-6)


def test_a_generator_saved_before_makes_the_images_it_made():
    slide = make_tissue(60, num_types=3, num_niches=2, num_genes=8, image="dapi", seed=7)
    slide.adata.obsm["X_cell"] = np.random.default_rng(0).normal(size=(60, 4)).astype("f4")
    model = ImageGenerator.from_pretrained(SAVED / "generator")
    ask = {"cells": np.arange(4), "sampling": Sampling(2), "device": "cpu", "progress": False}
    got = generate(model, slide, transition="larger", **ask).images
    with np.load(SAVED / "generator" / "images.npz") as expected:
        np.testing.assert_allclose(got, expected["images"], rtol=1e-5, atol=1e-5)


def test_a_network_of_morphology_saved_before_measures_as_it_did():
    model = MorphologyProfile.from_pretrained(SAVED / "morphology")
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), np.load(SAVED / "morphology" / "features.npz") as expected:
        np.testing.assert_allclose(model(images), expected["features"], rtol=1e-5, atol=1e-6)
