"""Genes of donors never seen, predicted from images: known answers, masks and leaks."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spatiagraph.evaluate import Cells, log_normalize, score_transfer_images, summarize_transfer
from spatiagraph.evaluate.inputs import UnscorableError

DONOR = np.repeat(["ann", "bob", "cid"], 60)


def cohort(seed=0):
    rng = np.random.default_rng(seed)
    counts = csr_matrix(rng.poisson(rng.gamma(2, 3, (180, 12))).astype(np.float32))
    return Cells(counts, rng.uniform(0, 300, (180, 2)), DONOR, "counts")


CELLS = cohort()
LOG = log_normalize(CELLS.counts).toarray()
NOISE = np.random.default_rng(1).normal(size=(180, 3))


def fixed(z):
    return lambda train: z


@pytest.mark.parametrize("num_donors", [2, 3])
def test_features_that_show_the_genes_score_one_and_noise_scores_nothing(num_donors):
    own = np.flatnonzero(np.isin(DONOR, ["ann", "bob", "cid"][:num_donors]))
    cells = Cells(CELLS.counts[own], CELLS.pos[own], DONOR[own], "counts")
    features = {"knows": fixed(LOG[own]), "noise": fixed(NOISE[own])}
    table = score_transfer_images(features, cells, DONOR[own])
    mean = summarize_transfer(table)
    assert mean.loc["knows", "pearson_mean"] > 0.97
    assert abs(mean.loc["noise", "pearson_mean"]) < 0.1
    assert mean.loc["train_mean", "pearson_mean"] == 0
    assert mean.loc["depth_oracle", "pearson_given_depth"] == 0
    assert (mean["num_donors"] == num_donors).all()
    assert (table["num_cells"] == 60).all()
    assert (table["num_genes"] == 12).all()


def test_features_are_made_once_per_donor_from_the_others():
    seen = []

    def features(train):
        seen.append((set(DONOR[train]), set(DONOR[~train])))
        return NOISE

    score_transfer_images({"own": features}, CELLS, DONOR)
    assert [held_out for _, held_out in seen] == [{"ann"}, {"bob"}, {"cid"}]
    assert not any(train & held_out for train, held_out in seen)


def test_a_donor_is_predicted_by_what_other_donors_show():
    """Between donors the features turn their sign: what is learned on two misleads on the third."""
    sign = np.where(DONOR == "cid", -1.0, 1.0)[:, None]
    table = score_transfer_images({"turned": fixed(sign * LOG)}, CELLS, DONOR)
    by_donor = table[table["embedding"] == "turned"].set_index("donor")["pearson_mean"]
    assert by_donor["cid"] < -0.9


def test_cells_without_an_image_take_no_part():
    mask = np.ones(180, dtype=bool)
    mask[:20] = False
    mask[DONOR == "cid"] = False
    z = np.where(mask[:, None], LOG, np.nan)
    table = score_transfer_images({"knows": fixed(z)}, CELLS, DONOR, image_mask=mask)
    own = table[table["embedding"] == "knows"].set_index("donor")
    assert own["num_cells"].to_dict() == {"ann": 40, "bob": 60}
    assert (own["pearson_mean"] > 0.95).all()


def test_unusable_requests_are_refused():
    with pytest.raises(UnscorableError, match="two donors with images, got 1"):
        score_transfer_images({}, CELLS, DONOR, image_mask=DONOR == "ann")
    few = np.arange(180) % 60 < np.where(DONOR == "cid", 0, 10)
    with pytest.raises(UnscorableError, match="at least 20 cells on each slide"):
        score_transfer_images({}, CELLS, DONOR, image_mask=few)
    with pytest.raises(ValueError, match="'image_mask' of 180 booleans"):
        score_transfer_images({}, CELLS, DONOR, image_mask=np.ones(180))
    with pytest.raises(ValueError, match="'own' with 180 rows, got 5"):
        score_transfer_images({"own": fixed(NOISE[:5])}, CELLS, DONOR)
    with pytest.raises(ValueError, match="no slide in both"):
        score_transfer_images({}, CELLS._replace(slide=np.zeros(180)), DONOR)
