import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

import spatiagraph as sg
from spatiagraph.data.splits import Folds, check_no_leak, spatial_blocks
from spatiagraph.evaluate import (
    gene_pearson,
    imputation_splits,
    log_normalize,
    ridge_on,
    score_imputation,
)

SLIDE = sg.make_tissue(300, num_genes=40, image=None, seed=0)
COUNTS, POS = SLIDE.counts, SLIDE.pos
NAMES = ["train_mean", "ridge_depth", "ridge", "knn_expr", "nbr_mean_train", "ridge_own_nbr"]


def test_hidden_genes_and_test_cells_are_disjoint_and_cover_everything():
    splits = [split for split, _ in imputation_splits(COUNTS, POS)]
    genes = np.flatnonzero(COUNTS.getnnz(axis=0) >= 10)
    np.testing.assert_array_equal(np.sort(np.concatenate([s.hidden for s in splits])), genes)
    np.testing.assert_array_equal(np.sort(np.concatenate([s.test for s in splits])), range(300))
    for s in splits:
        np.testing.assert_array_equal(np.union1d(s.hidden, s.visible), genes)
        np.testing.assert_array_equal(np.union1d(s.train, s.test), range(300))
        assert not np.intersect1d(s.hidden, s.visible).size
        assert (spatial_blocks(POS, seed=0)[s.test] == s.number).all()


def test_folds_may_be_donors_and_have_a_margin():
    donor = np.repeat([3, 5, 9, -1], 75)  # the last takes no part
    splits = [split for split, _ in imputation_splits(COUNTS, POS, folds=donor)]
    genes = np.flatnonzero(COUNTS.getnnz(axis=0) >= 10)
    np.testing.assert_array_equal(np.sort(np.concatenate([s.hidden for s in splits])), genes)
    for s, name in zip(splits, (3, 5, 9), strict=True):
        np.testing.assert_array_equal(s.test, np.flatnonzero(donor == name))
        np.testing.assert_array_equal(s.train, np.flatnonzero((donor >= 0) & (donor != name)))
    table = score_imputation({}, COUNTS, POS, folds=donor, baselines=["train_mean"])
    assert table.loc["train_mean", ["num_splits", "num_cells"]].tolist() == [3, 225]
    folds = Folds(spatial_blocks(POS), POS, margin_um=25)
    for s, _ in imputation_splits(COUNTS, POS, folds=folds):
        check_no_leak(s.train, s.test, pos=POS, margin_um=25)
        assert s.train_counts.shape[0] == len(s.train) == len(s.target) < 300 - len(s.test)


def test_genes_of_a_donor_who_was_not_seen_follow_from_an_embedding_that_knows_them():
    """What drives the genes drives them in all donors; noise says nothing of the hidden ones."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(240, 3))
    counts = csr_matrix(rng.poisson(np.exp(z @ rng.normal(size=(3, 20)) + 1)).astype(np.float32))
    donor, pos = np.repeat([0, 1, 2], 80), rng.uniform(0, 300, (240, 2))
    methods = {"knows": ridge_on(lambda split: z), "noise": ridge_on(lambda split: z[::-1])}
    table = score_imputation(
        methods, counts, pos, slide=donor, folds=donor, baselines=["train_mean"]
    )
    assert table.loc["knows", "pearson_mean"] > 0.6
    assert abs(table.loc["noise", "pearson_mean"]) < 0.15


def test_targets_use_the_depth_of_the_panel_and_inputs_that_of_visible_genes():
    log = log_normalize(COUNTS).toarray()
    total = np.asarray(COUNTS.sum(1)).ravel()
    for split, truth in imputation_splits(COUNTS, POS):
        np.testing.assert_array_equal(truth, log[np.ix_(split.test, split.hidden)])
        np.testing.assert_array_equal(split.target, log[np.ix_(split.train, split.hidden)])
        assert split.depth == np.median(total)
        own = COUNTS[:, split.visible]
        np.testing.assert_array_equal(split.log, log_normalize(own).toarray())


def test_a_method_sees_nothing_of_the_hidden_counts_of_test_cells():
    for number, (split, _) in enumerate(imputation_splits(COUNTS, POS)):
        changed = COUNTS.toarray()
        total = changed.sum(1)
        block = np.ix_(split.test, split.hidden)
        changed[block] = changed[block][:, ::-1]  # totals stay, and with them the median
        assert (changed.sum(1) == total).all()
        other = list(imputation_splits(csr_matrix(changed), POS, min_cells=0))[number][0]
        same = list(imputation_splits(COUNTS, POS, min_cells=0))[number][0]
        for a, b in zip(vars(same).values(), vars(other).values(), strict=True):
            a, b = (m.toarray() if isinstance(m, csr_matrix) else m for m in (a, b))
            np.testing.assert_array_equal(a, b)


def test_knowing_the_answer_scores_one_and_the_mean_scores_zero():
    """SPATIA fact 41, for genes."""
    log = log_normalize(COUNTS).toarray()
    table = score_imputation(
        {"oracle": lambda split: torch.from_numpy(log[np.ix_(split.test, split.hidden)])},
        COUNTS,
        POS,
        baselines=["train_mean"],
    )
    assert table.loc["oracle", "pearson_mean"] == pytest.approx(1)
    assert table.loc["oracle", "rmse"] == 0
    assert table.loc["train_mean", "pearson_mean"] == 0
    assert (table["num_genes"] == (COUNTS.getnnz(axis=0) >= 10).sum()).all()


def test_baselines_equal_what_their_names_say():
    split, truth = next(imputation_splits(COUNTS, POS))
    first = {}

    def keep(name):
        def method(s):
            guess = ridge_on(lambda s: s.log)(s)
            first.setdefault(name, guess)
            return guess

        return method

    score_imputation({"mine": keep("mine")}, COUNTS, POS, baselines=[])
    scaler = StandardScaler().fit(split.log[split.train])
    model = RidgeCV(np.logspace(-1, 6, 15)).fit(
        scaler.transform(split.log[split.train]), split.target
    )
    want = model.predict(scaler.transform(split.log[split.test]))
    np.testing.assert_allclose(first["mine"], want, rtol=1e-5)
    near = cKDTree(POS[split.train]).query(POS[split.test], k=15)[1]
    spatial = gene_pearson(truth, split.target[near].mean(1)).mean()
    one = score_imputation({}, COUNTS, POS)
    other = []
    for s, t in imputation_splits(COUNTS, POS):
        near = cKDTree(POS[s.train]).query(POS[s.test], k=15)[1]
        other.append(gene_pearson(t, s.target[near].mean(1)).mean())
    assert other[0] == spatial
    assert one.loc["nbr_mean_train", "pearson_mean"] == pytest.approx(np.mean(other))
    assert one.loc["nbr_mean_train", "pearson_mean_std"] == pytest.approx(np.std(other, ddof=1))
    assert one.index.tolist() == NAMES


def test_an_embedding_helps_beside_the_genes_when_it_knows_more():
    types = np.eye(8)[SLIDE.adata.obs["cell_type"].cat.codes]
    methods = {
        "type": ridge_on(lambda split: types),
        "genes": ridge_on(lambda split: split.log),
        "both": ridge_on(lambda split: types, with_genes=True),
    }
    r = score_imputation(methods, COUNTS, POS, baselines=["ridge"])["pearson_mean"]
    assert r["genes"] == pytest.approx(r["ridge"])
    assert r["both"] > r["ridge"] + 0.02


def test_neighbours_do_not_cross_slides():
    twice = np.concatenate([POS, POS])
    slide = np.repeat(["a", "b"], 300)
    rng = np.random.default_rng(0)
    noise = rng.poisson(2.0, COUNTS.shape)
    counts = np.concatenate([COUNTS.toarray(), noise])
    names = ["nbr_mean_train", "ridge_own_nbr"]
    far = twice.copy()
    far[300:, 0] += 1e6
    near = score_imputation({}, counts, twice, slide=slide, baselines=names)
    pd.testing.assert_frame_equal(
        near, score_imputation({}, counts, far, slide=slide, baselines=names)
    )
    assert len(near) == 2


def test_normalised_values_are_only_logged():
    split, truth = next(imputation_splits(COUNTS / 3, POS, expression="normalized"))
    want = np.log1p((COUNTS / 3).toarray())
    np.testing.assert_allclose(truth, want[np.ix_(split.test, split.hidden)], rtol=1e-6)
    np.testing.assert_allclose(split.log, want[:, split.visible], rtol=1e-6)


def test_bad_input_is_refused():
    def zeros(split):
        return np.zeros((len(split.test), len(split.hidden)))

    for arguments, words in (
        (({"ridge": zeros}, COUNTS, POS), "names than those of baselines, got ridge"),
        (({"z": lambda s: zeros(s)[:, 1:]}, COUNTS, POS), r"\(cells, genes\), got"),
        (({"z": zeros}, COUNTS, POS[:9]), "each of 300 cells, got 9"),
        (({"z": zeros}, COUNTS[:, :4], POS), "'num_splits' between 2"),
        (({"z": ridge_on(lambda s: np.ones((3, 2)))}, COUNTS, POS), "of 300 cells, got 3 rows"),
    ):
        with pytest.raises(ValueError, match=words):
            score_imputation(*arguments)
    with pytest.raises(ValueError, match="baselines among train_mean, .* got tangram"):
        score_imputation({}, COUNTS, POS, baselines=["tangram"])
    with pytest.raises(ValueError, match="at least one method or baseline"):
        score_imputation({}, COUNTS, POS, baselines=[])


REAL = {
    "xenium_breast_crop/cells.h5ad": (
        {"image": False},
        {"train_mean": 0, "ridge_depth": 0.072, "ridge": 0.360, "knn_expr": 0.357}
        | {"nbr_mean_train": 0.142, "ridge_own_nbr": 0.352},
        {"train_mean": 0.357, "ridge": 0.300, "nbr_mean_train": 0.349},
    ),
    "starmap_by3/starmap_by3.h5ad": (
        {"mpp": 0.1},
        {"train_mean": 0, "ridge_depth": 0.097, "ridge": 0.145, "knn_expr": 0.127}
        | {"nbr_mean_train": 0.043, "ridge_own_nbr": 0.143},
        {"train_mean": 0.317, "ridge": 0.308, "nbr_mean_train": 0.323},
    ),
    "merfish_mpoa/merfish_mpoa.h5ad": (
        {"expression": "normalized"},
        {"train_mean": 0, "ridge_depth": 0.106, "ridge": 0.438, "knn_expr": 0.455}
        | {"nbr_mean_train": 0.125, "ridge_own_nbr": 0.440},
        {"train_mean": 0.555, "ridge": 0.455, "nbr_mean_train": 0.555},
    ),
}


@pytest.mark.parametrize(
    "file",
    [
        name if "starmap" not in name else pytest.param(name, marks=pytest.mark.slow)
        for name in REAL
    ],
)
def test_baselines_score_as_published(real_data, file):
    """Measured with the same protocol by other code; three digits are known."""
    arguments, pearson, rmse = REAL[file]
    slide = sg.read(real_data / file, **arguments)
    table = score_imputation({}, slide.counts, slide.pos, expression=slide.expression)
    for name, value in pearson.items():
        assert table.loc[name, "pearson_mean"] == pytest.approx(value, abs=2e-3)
    for name, value in rmse.items():
        assert table.loc[name, "rmse"] == pytest.approx(value, abs=2e-3)
