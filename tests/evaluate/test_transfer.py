"""Transfer between donors: nothing of the held-out one is learned from, and scores are right."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spatiagraph.evaluate import score_transfer, summarize_transfer
from spatiagraph.evaluate.transfer_baselines import BASELINES, Cells

NONE: list[str] = []


def cohort(num_donors=3, per_donor=120, seed=0):
    """Donors with three bands of tissue each, a profile per band."""
    rng = np.random.default_rng(seed)
    num = num_donors * per_donor
    donor = np.repeat([f"donor{n}" for n in range(num_donors)], per_donor)
    pos = rng.uniform(0, 300, (num, 2))
    band = (pos[:, 0] // 100).astype(int)
    profile = rng.gamma(1.0, 2.0, (3, 20))
    return csr_matrix(rng.poisson(profile[band]).astype(np.float32)), pos, band, donor


def test_perfect_embeddings_score_one_and_noise_scores_chance():
    counts, pos, band, donor = cohort()
    noise = np.random.default_rng(1).normal(size=(len(band), 4))
    table = score_transfer(
        {"truth": lambda train: np.eye(3)[band], "noise": lambda train: noise},
        counts, pos, band, donor=donor, baselines=NONE,
    )  # fmt: skip
    mean = summarize_transfer(table)
    assert mean.loc["truth", ["macro_F1", "accuracy", "ARI", "precision"]].tolist() == [1, 1, 1, 1]
    assert mean.loc["noise", "precision"] == pytest.approx(
        mean.loc["chance", "precision"], abs=0.05
    )
    assert mean.loc["chance", "precision"] == pytest.approx(1 / 3, abs=0.02)
    assert abs(mean.loc["noise", "ARI"]) < 0.05
    assert (mean["num_donors"] == 3).all()


def test_an_embedding_is_made_once_per_donor_from_the_others_alone():
    counts, pos, band, donor = cohort()
    asked = []

    def embed(train):
        asked.append(train.copy())
        return np.eye(3)[band]

    score_transfer({"own": embed}, counts, pos, band, donor=donor, baselines=NONE)
    held_out = [set(donor[~train]) for train in asked]
    assert held_out == [{"donor0"}, {"donor1"}, {"donor2"}]
    assert all(not set(donor[train]) & set(donor[~train]) for train in asked)


@pytest.mark.parametrize("name", [n for n in BASELINES if n not in ("harmony",)])
def test_baselines_learn_nothing_from_the_held_out_donor(name):
    counts, pos, _, donor = cohort()
    train = donor != "donor2"
    other = counts.toarray()
    other[~train] = np.random.default_rng(5).poisson(9, other[~train].shape)
    embed = BASELINES[name].embed
    first = embed(Cells(counts, pos, donor, "counts"), train)
    second = embed(Cells(csr_matrix(other), pos, donor, "counts"), train)
    np.testing.assert_allclose(first[train], second[train], rtol=1e-4, atol=1e-4)
    assert not np.allclose(first[~train], second[~train])


def test_baselines_transfer_what_a_profile_tells():
    counts, pos, band, donor = cohort()
    table = score_transfer({}, counts, pos, band, donor=donor, num_seeds=1)
    mean = summarize_transfer(table)
    assert mean.loc["pca30_nbr15", "macro_F1"] > 0.9
    assert mean.loc["pca30_nbr15", "precision"] > 0.8 > mean.loc["chance", "precision"]
    assert mean.loc["sqrt_expression", "macro_F1"] > 0.9
    assert np.isnan(mean.loc["sqrt_expression", "ARI"])
    assert mean.loc["majority", "macro_F1"] < 0.4


def test_whitening_and_centring_do_what_they_say():
    counts, pos, _, donor = cohort()
    cells, train = Cells(counts, pos, donor, "counts"), donor != "donor0"
    white = BASELINES["pca30_nbr15_white"].embed(cells, train)
    np.testing.assert_allclose(white[train].std(axis=0), 1, rtol=1e-3)
    middle = BASELINES["pca30_nbr15_centered"].embed(cells, train)
    for name in set(donor):
        np.testing.assert_allclose(middle[donor == name].mean(axis=0), 0, atol=1e-4)


def test_harmony_brings_shifted_slides_together():
    pytest.importorskip("harmonypy")
    counts, pos, _, donor = cohort(2, 200)
    shifted = counts.toarray()
    shifted[donor == "donor1", :6] += 1
    cells, train = Cells(csr_matrix(shifted), pos, donor, "counts"), donor == "donor0"
    apart = {}
    for name in ("pca30_nbr15", "harmony"):
        z = BASELINES[name].embed(cells, train)
        assert z.shape[0] == 400
        apart[name] = np.linalg.norm(z[train].mean(0) - z[~train].mean(0))
    assert apart["harmony"] < 0.5 * apart["pca30_nbr15"]


def test_a_slide_of_two_donors_is_refused():
    counts, pos, band, donor = cohort()
    slide = donor.copy()
    slide[:5] = "donor1"
    with pytest.raises(ValueError, match="no slide in both 'train' and 'test'"):
        score_transfer({}, counts, pos, band, donor=donor, slide=slide, baselines=["pca30"])


def test_unlabelled_cells_and_donors_are_no_test_cells():
    counts, pos, band, donor = cohort()
    known = band.astype(float)
    known[donor == "donor2"] = np.nan
    known[:10] = np.nan
    table = score_transfer(
        {"truth": lambda train: np.eye(3)[band]}, counts, pos, known, donor=donor, baselines=NONE
    )
    own = table[table["embedding"] == "truth"].set_index("donor")["num_cells"]
    assert own.to_dict() == {"donor0": 110, "donor1": 120}


def test_unusable_requests_are_refused():
    counts, pos, band, donor = cohort()
    score = {"counts": counts, "pos": pos, "labels": band}
    with pytest.raises(ValueError, match="two donors with labels, got 1"):
        score_transfer({}, **score, donor=["one"] * len(band))
    with pytest.raises(ValueError, match="'donor' for each of 360 cells, got 3"):
        score_transfer({}, **score, donor=["a", "b", "c"])
    with pytest.raises(ValueError, match="a donor for each cell, got none for 360"):
        score_transfer({}, **score, donor=[None] * len(band))
    with pytest.raises(ValueError, match="other names than those of baselines, got pca30"):
        score_transfer({"pca30": lambda train: pos}, **score, donor=donor)
    with pytest.raises(ValueError, match="a row for each of 360 cells, got 5"):
        score_transfer({"own": lambda train: pos[:5]}, **score, donor=donor, baselines=NONE)
