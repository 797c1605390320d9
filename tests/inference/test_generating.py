"""Images asked of generators: of which cells, and what they depend on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spatiagraph.data import Slide, make_tissue, pairs_of_cells
from spatiagraph.data.recipe import Crop
from spatiagraph.flow import LinearPath, Sampling
from spatiagraph.inference import generate
from spatiagraph.models import CellImagePipeline, ImageGenerator
from spatiagraph.models.generator import TINY
from spatiagraph.training import fit_generator

WINDOW_UM, SIZE_PX = 14.0, 16
STATES = [("type1", "type2", "larger"), ("type1", "type0", "smaller")]
QUICK = replace(TINY, channels=8, condition_channels=8)
FROM_NOISE = {"path": LinearPath("noise")}
ASK = {"sampling": Sampling(2), "progress": False}


def untrained(slide, **options) -> ImageGenerator:
    given = {"context": ["X_cell"], "crop": Crop(WINDOW_UM, SIZE_PX), **options}
    return ImageGenerator.for_slides([slide], QUICK, **given)


def moving(model: ImageGenerator) -> ImageGenerator:
    """A generator whose images depend on what it is told, as those of a trained one."""
    torch.manual_seed(0)
    for parameter in model.unet.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture(scope="module")
def small():
    slide = make_tissue(150, num_types=3, num_niches=2, num_genes=30, image="dapi", seed=0)
    slide.adata.obsm["X_cell"] = np.random.default_rng(0).normal(size=(150, 4)).astype("f4")
    return slide


def test_cells_in_the_control_state_are_asked_unless_others_are_named(small):
    model = untrained(small, transitions=STATES, states_key="cell_type")
    made = generate(model, small, transition="larger", **ASK)
    control = np.flatnonzero(small.adata.obs["cell_type"] == "type1")
    assert made.cells["row"].tolist() == control.tolist()
    assert made.cells["transition"].eq("larger").all()
    named = generate(model, small, transition="larger", cells=["cell9", "cell4"], **ASK)
    assert named.cells["row"].tolist() == [9, 4]
    assert named.images.shape == (2, 1, 1, SIZE_PX, SIZE_PX)
    assert named.mpp == WINDOW_UM / SIZE_PX


@pytest.mark.parametrize("source", ["control", "noise"])
def test_images_do_not_depend_on_what_else_is_made(small, source):
    model = moving(untrained(small, path=LinearPath(source)))

    def made(cells, **options):
        return generate(model, small, cells=cells, num_samples=2, **ASK, **options).images

    many = made(np.arange(10))
    np.testing.assert_allclose(made(np.arange(10), batch_size=3), many, atol=1e-5)
    np.testing.assert_allclose(made([7, 4]), many[[7, 4]], atol=1e-5)
    again = made([7, 7])  # a cell that comes again has noise of its own
    assert (np.abs(again[0] - again[1]).max() > 0.1) == (source == "noise")


def test_samples_differ_where_flows_start_at_noise(small):
    model = untrained(small, **FROM_NOISE)
    ask = {"cells": [0, 1], "num_samples": 3, "progress": False}
    made = generate(model, small, sampling=Sampling(2, seed=1), **ask)
    assert made.images.shape[:2] == (2, 3)
    assert np.abs(made.images[:, 0] - made.images[:, 1]).max() > 0.1
    again = generate(model, small, sampling=Sampling(2, seed=1), **ask)
    np.testing.assert_array_equal(made.images, again.images)
    other = generate(model, small, sampling=Sampling(2), **ask)
    assert np.abs(made.images - other.images).max() > 0.1


def test_a_generator_may_come_as_a_pipeline(small):
    model = untrained(small, **FROM_NOISE)
    first, second = (
        generate(g, small, cells=[1, 2], **ASK) for g in (model, CellImagePipeline(model))
    )
    np.testing.assert_array_equal(first.images, second.images)


def test_embeddings_can_be_given_in_place_of_those_of_the_slide(small):
    model = moving(untrained(small, **FROM_NOISE))
    others = small.adata.obsm["X_cell"][[5, 6]]
    given = generate(model, small, cells=[0, 1], context={"X_cell": others}, **ASK)
    adata = small.adata.copy()
    adata.obsm["X_cell"][[0, 1]] = others
    changed = Slide(adata, small.image, slide_id=small.slide_id)
    own, before = (generate(model, slide, cells=[0, 1], **ASK) for slide in (changed, small))
    np.testing.assert_array_equal(given.images, own.images)
    assert np.abs(given.images - before.images).max() > 1e-3
    with pytest.raises(ValueError, match=r"'X_cell' of shape \[2, 4\], got none"):
        generate(model, small, cells=[0, 1], context={}, **ASK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"one of \['larger', 'smaller'\], got None"),
        ({"transition": "sideways"}, "got 'sideways'"),
        ({"transition": "larger", "cells": ["nobody"]}, r"got \['nobody'\]"),
        ({"transition": "larger", "cells": [999]}, "rows below 150"),
        ({"transition": "larger", "cells": np.zeros(150, dtype=bool)}, "got none"),
    ],
)
def test_questions_without_an_answer_are_refused(small, options, message):
    model = untrained(small, transitions=STATES, states_key="cell_type")
    with pytest.raises(ValueError, match=message):
        generate(model, small, **options, **ASK)


def test_colour_images_are_refused_by_a_generator_of_grey_ones(small):
    model = untrained(small)
    other = make_tissue(100, num_types=3, num_niches=2, num_genes=30, image="he", seed=0)
    other.adata.obsm["X_cell"] = np.zeros((100, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="of 1 channels as the generator makes, got 3"):
        generate(model, other, **ASK)
    with pytest.raises(ValueError, match="of 1 channels"):
        fit_generator(model, [other], pairs_of_cells([other]), max_epochs=1)
