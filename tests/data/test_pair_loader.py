import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data import PairLoader, make_tissue, pairs_of_cells
from spatiagraph.data.loader import read_crops
from spatiagraph.data.recipe import Crop
from spatiagraph.nn import Condition

SLIDES = [
    make_tissue(60, num_genes=20, image="dapi", seed=seed, slide_id=f"s{seed}") for seed in (0, 1)
]
PAIRS = pd.DataFrame(
    {
        "transition": ["up", "down", "up", "down", "up"],
        "slide": ["s0", "s1", "s1", "s0", "s0"],
        "control_row": [1, 2, 3, 4, 1],
        "target_row": [50, 40, 30, 20, 10],
        "confidence": [0.1, 0.2, 0.3, 0.4, 0.5],
    }
)
CROP = Crop(10.0, 8)
CROPS = {"crop": CROP}


def known(slide, rows):
    value = torch.from_numpy(slide.pos[rows]).float()
    return Condition(context=value)


def loader(pairs=PAIRS, **options) -> PairLoader:
    given = {"transitions": ["up", "down"], "known": known, "batch_size": 2, **CROPS, **options}
    return PairLoader(SLIDES, pairs, **given)


def test_a_batch_holds_both_images_and_what_is_known_of_the_control():
    batch = loader().batch([2, 0])
    assert_close(batch.image[0], read_crops(SLIDES[1], np.array([3]), CROP)[0])
    assert_close(batch.target_image[0], read_crops(SLIDES[1], np.array([30]), CROP)[0])
    assert_close(batch.image[1], read_crops(SLIDES[0], np.array([1]), CROP)[0])
    assert_close(batch.target_image[1], read_crops(SLIDES[0], np.array([50]), CROP)[0])
    assert_close(batch.confidence, torch.tensor([0.3, 0.1]))
    assert batch.condition.transition.tolist() == [0, 0]
    assert_close(batch.condition.context[0], torch.from_numpy(SLIDES[1].pos[3]).float())
    assert batch.condition.genes is None


def test_every_pair_comes_once_in_an_epoch_and_orders_differ():
    batches = loader()
    orders = []
    for epoch in (0, 1):
        batches.sampler.set_epoch(epoch)
        orders.append(torch.cat([batch.confidence for batch in batches]).tolist())
    assert sorted(orders[0]) == sorted(orders[1])
    assert len(orders[0]) == 5
    assert orders[0] != orders[1]


def test_cells_can_be_their_own_targets():
    pairs = pairs_of_cells(SLIDES, {"s0": np.array([5]), "s1": np.array([], dtype=np.int64)})
    batch = PairLoader(SLIDES, pairs, **CROPS).batch([0])
    assert torch.equal(batch.image, batch.target_image)
    assert batch.condition == Condition()
    assert len(pairs_of_cells(SLIDES)) == 120


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"slide": "s7"}, {}, r"given slides, got \['s7'\]"),
        ({"transition": "sideways"}, {}, r"\['up', 'down'\], got \['sideways'\]"),
        ({}, {"crop": Crop(1e4, 8)}, "lower window_um"),
    ],
)
def test_what_does_not_fit_is_refused(change, options, message):
    with pytest.raises(ValueError, match=message):
        loader(PAIRS.assign(**change), **options)


def test_pairs_without_a_transition_are_refused_where_one_is_needed():
    with pytest.raises(ValueError, match=r"\['up', 'down'\], got none named"):
        loader(pairs_of_cells(SLIDES))


def test_slides_without_image_and_empty_tables_are_refused():
    bare = make_tissue(60, num_genes=20, image=None, slide_id="s0")
    with pytest.raises(ValueError, match="an image with slide 's0'"):
        PairLoader([bare], PAIRS[PAIRS["slide"] == "s0"], **CROPS)
    with pytest.raises(ValueError, match="got none"):
        loader(PAIRS.iloc[:0])
