"""End to end: pairs, training, images. The tissue's nuclei tell whether it worked."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from spatiagraph.data import Slide, make_tissue, measure_morphology, pairs_of_cells
from spatiagraph.data.loader import read_crops
from spatiagraph.evaluate.baselines import domain_baselines
from spatiagraph.heads import CellImagePipeline, ImageGenerator, pair_states
from spatiagraph.training import fit_generator, generate

WINDOW_UM, SIZE_PX = 14.0, 16
STATES = [("type1", "type2", "larger"), ("type1", "type0", "smaller")]
FAST = {"accelerator": "cpu", "progress": False, "lr": 2e-3, "average": 0.99, "batch_size": 32}


@pytest.fixture(autouse=True)
def one_thread():
    """Networks this small are slowed down by threads, a lot so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tissue(**options):
    """Three types of cells whose nuclei differ in size, embedded by themselves and as niches."""
    slide = make_tissue(
        1000, num_types=3, num_niches=2, num_genes=40, image="dapi", seed=0, **options
    )
    baselines = domain_baselines(slide.counts, slide.pos)
    for key, name in (("X_cell", "pca30"), ("X_niche", "pca30_nbr15")):
        slide.adata.obsm[key] = baselines[name][:, :8].astype(np.float32)
    return slide


def in_test_half(slide) -> np.ndarray:
    return slide.pos[:, 0] > np.median(slide.pos[:, 0])


def mean_area(images) -> float:
    table = measure_morphology(images, mpp=WINDOW_UM / SIZE_PX, component="center")
    return float(table["area_um2"].mean())


def area_of(slide, cells) -> float:
    return mean_area(read_crops(slide, np.flatnonzero(cells), WINDOW_UM, SIZE_PX))


def trained(slide, pairs, *, max_epochs, **options) -> tuple[ImageGenerator, pd.DataFrame]:
    model = ImageGenerator.for_slides(
        [slide], size_px=SIZE_PX, window_um=WINDOW_UM, pairs=pairs, **options
    )
    return model, fit_generator(model, [slide], pairs, max_epochs=max_epochs, **FAST).history


def test_nuclei_of_cells_in_another_state_move_to_its_size():
    """SPATIA fact 43. Trained on one half of a section, asked on the other."""
    slide = tissue()
    held_out = in_test_half(slide)
    pairs = pair_states(
        [slide],
        STATES,
        states_key="cell_type",
        niche_key="niche",
        max_cells=None,
        among={slide.slide_id: ~held_out},
    )
    model, history = trained(
        slide,
        pairs,
        max_epochs=12,
        context=["X_cell", "X_niche"],
        transitions=STATES,
        states_key="cell_type",
    )
    assert history["flow"].iloc[-1] < 0.9 * history["flow"].iloc[0]
    state = slide.adata.obs["cell_type"].to_numpy()
    control = held_out & (state == "type1")
    before = area_of(slide, control)
    cells = np.flatnonzero(control)[:60]
    moved = {}
    for _, target, tag in STATES:
        shift = area_of(slide, held_out & (state == target)) - before
        made = generate(model, slide, transition=tag, cells=cells, num_steps=5, progress=False)
        moved[tag] = (mean_area(made.images[:, 0]) - mean_area(made.control), shift)
    (larger, to_larger), (smaller, to_smaller) = moved["larger"], moved["smaller"]
    assert larger / to_larger > 0.5
    assert smaller / to_smaller > 0.5
    assert smaller / to_larger < 0.1  # the wrong transition does not lead there
    assert larger / to_smaller < 0.1


def test_where_the_niche_decides_the_morphology_its_embedding_tells():
    """SPATIA fact 43: from noise, so that no image of the cell gives its niche away."""
    slide = tissue(niche_swelling=0.6, niche_um=250.0)
    held_out = in_test_half(slide)
    cells = np.flatnonzero(held_out)[:120]
    mpp = WINDOW_UM / SIZE_PX
    truth = measure_morphology(
        read_crops(slide, cells, WINDOW_UM, SIZE_PX), mpp=mpp, component="center"
    )["area_um2"].to_numpy()
    correlation = {}
    for context in (("X_cell",), ("X_cell", "X_niche")):
        pairs = pairs_of_cells([slide], {slide.slide_id: np.flatnonzero(~held_out)})
        model, _ = trained(slide, pairs, max_epochs=15, context=context, source="noise")
        made = generate(model, slide, cells=cells, num_steps=5, progress=False).images[:, 0]
        area = measure_morphology(made, mpp=mpp, component="center")["area_um2"].to_numpy()
        valid = np.isfinite(area) & np.isfinite(truth)
        correlation[context[-1]] = np.corrcoef(area[valid], truth[valid])[0, 1]
    assert correlation["X_niche"] > correlation["X_cell"] + 0.05


QUICK = {"size_px": SIZE_PX, "window_um": WINDOW_UM, "channels": 8, "condition_channels": 8}
ASK = {"num_steps": 2, "progress": False}


def untrained(slide, **options) -> ImageGenerator:
    return ImageGenerator.for_slides([slide], context=["X_cell"], **{**QUICK, **options})


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
    model = moving(untrained(small, source=source))

    def made(cells, **options):
        return generate(model, small, cells=cells, num_samples=2, **ASK, **options).images

    many = made(np.arange(10))
    np.testing.assert_allclose(made(np.arange(10), batch_size=3), many, atol=1e-5)
    np.testing.assert_allclose(made([7, 4]), many[[7, 4]], atol=1e-5)
    again = made([7, 7])  # a cell that comes again has noise of its own
    assert (np.abs(again[0] - again[1]).max() > 0.1) == (source == "noise")


def test_samples_differ_where_flows_start_at_noise(small):
    model = untrained(small, source="noise")
    made = generate(model, small, cells=[0, 1], num_samples=3, seed=1, **ASK)
    assert made.images.shape[:2] == (2, 3)
    assert np.abs(made.images[:, 0] - made.images[:, 1]).max() > 0.1
    again = generate(model, small, cells=[0, 1], num_samples=3, seed=1, **ASK)
    np.testing.assert_array_equal(made.images, again.images)


def test_a_generator_may_come_as_a_pipeline(small):
    model = untrained(small, source="noise")
    first, second = (
        generate(g, small, cells=[1, 2], **ASK) for g in (model, CellImagePipeline(model))
    )
    np.testing.assert_array_equal(first.images, second.images)


def test_embeddings_can_be_given_in_place_of_those_of_the_slide(small):
    model = moving(untrained(small, source="noise"))
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


def test_twenty_five_steps_lead_where_a_hundred_do():
    """Beside what another start makes of the same cells; two steps are not enough for that."""
    slide = make_tissue(200, num_types=3, num_genes=20, image="dapi", seed=0)
    kinds = slide.adata.obs["cell_type"].cat.codes
    slide.adata.obsm["X"] = np.eye(3, dtype=np.float32)[kinds]
    model = ImageGenerator.for_slides(
        [slide], context=["X"], source="noise", size_px=SIZE_PX, window_um=WINDOW_UM, channels=8
    )
    fit_generator(
        model,
        [slide],
        pairs_of_cells([slide]),
        max_epochs=6,
        **{**FAST, "lr": 5e-3, "average": 0.9},
    )

    def made(num_steps, seed=0):
        options = {"num_steps": num_steps, "seed": seed, "progress": False}
        return generate(model, slide, cells=np.arange(4), **options).images

    best = made(100)
    noise = np.abs(made(25, seed=1) - best).mean()
    assert np.abs(made(25) - best).mean() < 0.005 * noise
    assert np.abs(made(2) - best).mean() > 0.02 * noise
