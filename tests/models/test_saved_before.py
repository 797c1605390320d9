"""Models that were saved before keep loading, and give what they gave.

``data/saved_models`` holds a folder per model, trained for an epoch, every gate open: what
``save_pretrained`` wrote, and the embeddings of the first cells of the tissue below. They are
never written anew: a change of a model brings a way to read them.
"""

from pathlib import Path

import numpy as np
import pytest

from spatiagraph.data import make_tissue
from spatiagraph.models import ContextModel, Spatia
from spatiagraph.training.embedding import embed_data

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
