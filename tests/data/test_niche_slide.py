"""Niches in place of cells."""

import numpy as np
import pytest
import torch

import spatiagraph as sg
from spatiagraph.data import make_tissue, slide_of_niches
from spatiagraph.data.loader import PairLoader, read_crops
from spatiagraph.data.recipe import Crop
from spatiagraph.flow import Sampling
from spatiagraph.inference import generate
from spatiagraph.models import ImageGenerator
from spatiagraph.pairing import pair_niches, rows_of_niches
from spatiagraph.training import fit_generator

SQUARE_UM = 60.0


@pytest.fixture(scope="module")
def cells():
    """Cells in squares, most of one state in the left half and of another in the right."""
    slide = make_tissue(600, num_genes=20, image="dapi", seed=0)
    square = np.floor(slide.pos / SQUARE_UM).astype(int)
    slide.adata.obs["square"] = [f"{i}-{j}" for i, j in square]
    left = slide.pos[:, 0] < np.median(slide.pos[:, 0])
    slide.adata.obs["state"] = np.where(left, "before", "after")
    slide.adata.obsm["X_mine"] = np.random.default_rng(0).normal(size=(600, 4)).astype("f4")
    slide.donor = "ann"
    return slide


def test_a_niche_has_the_counts_the_embedding_and_the_box_of_its_cells(cells):
    niches = slide_of_niches(cells, "square", margin_um=20.0)
    obs, size = niches.adata.obs, cells.adata.obs["square"].value_counts()
    assert set(obs.index) == set(size.index[size >= 10])
    assert len(obs) < len(size)  # some have fewer
    assert niches.image is cells.image
    assert niches.donor == "ann"
    for row, name in enumerate(obs.index):
        own = (cells.adata.obs["square"] == name).to_numpy()
        assert obs["num_cells"].iloc[row] == own.sum()
        total = cells.counts.toarray()[own].sum(0)
        np.testing.assert_array_equal(niches.counts[row].toarray()[0], total)
        known = cells.adata.obsm["X_mine"][own].mean(0)
        np.testing.assert_allclose(niches.adata.obsm["X_mine"][row], known, rtol=1e-5)
        low, high = cells.pos[own].min(0), cells.pos[own].max(0)
        np.testing.assert_allclose(niches.pos[row], (low + high) / 2)
        assert obs["window_um"].iloc[row] == pytest.approx((high - low).max() + 40)


def test_normalised_expression_is_averaged_and_order_does_not_matter(cells):
    part = make_tissue(600, num_genes=20, image=None, seed=0)
    part.adata.obs["square"] = cells.adata.obs["square"].to_numpy()
    part = sg.Slide(part.adata, slide_id="n", expression="normalized", check=False)
    niches = slide_of_niches(part, "square")
    first = (part.adata.obs["square"] == niches.adata.obs_names[0]).to_numpy()
    known = part.counts.toarray()[first].mean(0)
    np.testing.assert_allclose(niches.counts[0].toarray()[0], known, rtol=1e-5)
    shuffled = slide_of_niches(part[np.random.default_rng(0).permutation(600)], "square")
    np.testing.assert_allclose(shuffled.counts.toarray(), niches.counts.toarray(), rtol=1e-5)
    np.testing.assert_allclose(shuffled.pos, niches.pos)


def test_images_of_niches_are_generated_from_pairs_of_niches(cells):
    """Windows of the whole niche, for a loader in each its own, for a generator in one size."""
    niches = slide_of_niches(cells, "square", margin_um=5.0)
    extent = np.asarray(niches.image.extent_um)
    half = niches.adata.obs["window_um"].to_numpy()[:, None] / 2
    own = Crop(None, 24, window_key="window_um")
    inside = ((niches.pos - half > extent[:2]) & (niches.pos + half < extent[2:])).all(1)
    row = int(np.flatnonzero(inside)[0])
    crop = read_crops(niches, np.array([row]), own)
    wide = Crop(float(niches.adata.obs["window_um"].iloc[row]), 24)
    torch.testing.assert_close(crop, read_crops(niches, np.array([row]), wide))
    pairs = pair_niches(
        [cells], [("before", "after", "on")], states_key="state", niche_key="square",
        min_fraction=0.6, min_cells=10,
    )  # fmt: skip
    pairs = rows_of_niches(pairs, [niches])
    names = niches.adata.obs_names
    assert (names[pairs["control_row"]] == pairs["control"]).all()
    assert (names[pairs["target_row"]] == pairs["target"]).all()
    batch = next(iter(PairLoader([niches], pairs, crop=own, transitions=["on"], batch_size=4)))
    assert batch.image.shape[1:] == batch.target_image.shape[1:] == (1, 24, 24)
    generator = ImageGenerator.for_slides(
        [niches], context=["X_mine"], transitions=[("before", "after", "on")], states_key="state",
        crop=Crop(SQUARE_UM + 10, 16),
    )  # fmt: skip
    fit_generator(generator, [niches], pairs, max_epochs=1, progress=False)
    made = generate(
        generator, niches, transition="on", cells=pairs["control_row"].to_numpy()[:2],
        sampling=Sampling(num_steps=1), progress=False,
    )  # fmt: skip
    assert made.images.shape == (2, 1, 1, 16, 16)
    with pytest.raises(ValueError, match=r"slides of niches \['synthetic'\], got \['x'\]"):
        rows_of_niches(pairs, [sg.Slide(niches.adata, slide_id="x", check=False)])
    with pytest.raises(ValueError, match="row for each niche of the pairs, got none"):
        rows_of_niches(pairs, [cells])


def test_niches_that_cannot_be_are_refused(cells):
    with pytest.raises(ValueError, match=r"niches of 500 cells in obs\['square'\]"):
        slide_of_niches(cells, "square", min_cells=500)
    with pytest.raises(ValueError, match="'margin_um' of 0 or more, got -1"):
        slide_of_niches(cells, "square", margin_um=-1)
    with pytest.raises(ValueError, match="nothing"):
        slide_of_niches(cells, "nothing")
