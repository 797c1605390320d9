import numpy as np
import pytest
from anndata import AnnData
from sklearn.linear_model import RidgeCV

import spatiagraph as sg
from spatiagraph.evaluate import log_normalize, ridge_entries_on, score_entry_imputation

SLIDE = sg.make_tissue(250, num_genes=40, image=None, seed=0)
COUNTS = SLIDE.counts


def seen_by_a_method(**arguments):
    """All splits that a method is given."""
    splits = []

    def method(split):
        splits.append(split)
        return split.filled

    score_entry_imputation({"mine": method}, COUNTS, SLIDE.pos, baselines=[], **arguments)
    return splits


def test_every_cell_hides_its_share_and_no_hidden_count_is_seen():
    splits = seen_by_a_method(num_repeats=2)
    for split in splits:
        num_genes = split.hidden.shape[1]
        assert (split.hidden.sum(1) == round(0.2 * num_genes)).all()
        assert not split.counts.toarray()[split.hidden].any()
        kept = COUNTS.toarray()[:, COUNTS.getnnz(axis=0) >= 10]
        np.testing.assert_array_equal(split.counts.toarray()[~split.hidden], kept[~split.hidden])
    assert (splits[0].hidden != splits[1].hidden).any()


def test_filling_in_uses_visible_values_alone():
    (split,) = seen_by_a_method(num_repeats=1)
    log = log_normalize(split.counts).toarray()
    np.testing.assert_allclose(split.log, log, rtol=1e-6)
    means = [log[~split.hidden[:, g], g].mean() for g in range(log.shape[1])]
    np.testing.assert_allclose(split.gene_means, means, rtol=1e-5)
    np.testing.assert_allclose(split.filled[~split.hidden], log[~split.hidden], rtol=1e-6)


def test_knowing_the_answer_scores_one_and_the_mean_scores_zero():
    """SPATIA fact 41, for genes."""

    def oracle(split):
        counts = COUNTS.toarray()[:, COUNTS.getnnz(axis=0) >= 10]
        total = np.asarray(split.counts.sum(1, dtype=float))
        return np.log1p(counts * (split.depth / total))

    table = score_entry_imputation({"oracle": oracle}, COUNTS)
    assert table.loc["oracle", "pearson_mean"] == pytest.approx(1)
    assert table.loc["oracle", "rmse"] < 1e-6
    assert table.loc["gene_mean", "pearson_mean"] == pytest.approx(0, abs=1e-9)
    assert table.loc["knn_smooth", "pearson_mean"] > 0.05
    assert table.loc["low_rank", "pearson_mean"] > 0.05


def test_scores_are_those_of_the_hidden_values_of_each_gene():
    rng = np.random.default_rng(0)
    guess = rng.normal(size=COUNTS.shape)[:, COUNTS.getnnz(axis=0) >= 10]
    kept = []

    def method(split):
        kept.append(split)
        return guess

    table = score_entry_imputation({"mine": method}, COUNTS, baselines=[], num_repeats=1)
    (split,) = kept
    total = np.asarray(split.counts.sum(1, dtype=float))
    counts = COUNTS.toarray()[:, COUNTS.getnnz(axis=0) >= 10]
    truth = np.log1p(counts * (split.depth / total))
    r, rmse = [], []
    for g in range(truth.shape[1]):
        rows = split.hidden[:, g]
        r.append(np.corrcoef(truth[rows, g], guess[rows, g])[0, 1])
        rmse.append(np.sqrt(np.mean((truth[rows, g] - guess[rows, g]) ** 2)))
    assert table.loc["mine", "pearson_mean"] == pytest.approx(np.mean(r), abs=1e-6)
    assert table.loc["mine", "rmse"] == pytest.approx(np.mean(rmse), rel=1e-6)


def test_normalised_values_keep_their_scale():
    def oracle(split):
        assert split.depth == 1
        return np.log1p(COUNTS.toarray()[:, COUNTS.getnnz(axis=0) >= 10] / 3)

    table = score_entry_imputation(
        {"oracle": oracle}, COUNTS / 3, expression="normalized", baselines=["gene_mean"]
    )
    assert table.loc["oracle", "rmse"] < 1e-6


def test_ridge_is_fitted_on_values_that_the_embedding_has_not_seen():
    z = np.random.default_rng(1).normal(size=(250, 3))
    (split,) = seen_by_a_method(num_repeats=1)
    given = []

    def embed(again):
        given.append(again)
        return 5 * z + 1

    guess = ridge_entries_on(embed)(split)
    (again,) = given
    second = again.hidden & ~split.hidden
    assert (second.sum(1) == split.hidden.sum(1)).all()
    assert again.hidden[split.hidden].all()
    assert not again.counts.toarray()[again.hidden].any()
    kept = split.counts.toarray()
    np.testing.assert_array_equal(again.counts.toarray()[~again.hidden], kept[~again.hidden])
    x = (z - z.mean(0)) / z.std(0)
    for gene in (0, 17):
        own = second[:, gene]
        model = RidgeCV(np.logspace(-1, 6, 15)).fit(x[own], split.log[own, gene])
        np.testing.assert_allclose(guess[:, gene], model.predict(x))


def test_an_embedding_that_copies_what_it_sees_knows_nothing_of_the_rest():
    noise = np.random.default_rng(0).poisson(3.0, (300, 20))
    table = score_entry_imputation(
        {"copy": ridge_entries_on(lambda split: split.log)}, noise, num_repeats=1
    )
    assert table.loc["copy", "rmse"] < 1.1 * table.loc["gene_mean", "rmse"]


def test_a_model_that_knows_the_types_beats_the_mean():
    types = np.eye(8)[SLIDE.adata.obs["cell_type"].cat.codes]
    table = score_entry_imputation(
        {"types": ridge_entries_on(lambda split: types)}, COUNTS, num_repeats=1
    )
    r = table["pearson_mean"]
    assert r["types"] > r["gene_mean"] + 0.1


def test_a_trained_model_stands_in_the_table():
    def embed(split):
        adata = AnnData(split.counts, obsm={"spatial": split.pos})
        slide = sg.Slide(adata, slide_id="holes", check=False)
        model = sg.models.ContextModel.for_slides([slide], image=None, seed=0)
        sg.fit(model, [slide], max_steps=5, seed=0, progress=False)
        return sg.embed(model, slide, progress=False).obsm["X_context"]

    whole = sg.make_tissue(600, num_genes=60, image=None, seed=0)
    table = score_entry_imputation(
        {"model": ridge_entries_on(embed)},
        whole.counts,
        whole.pos,
        num_repeats=1,
        baselines=["gene_mean"],
    )
    assert table.loc["model", "pearson_mean"] > table.loc["gene_mean", "pearson_mean"] + 0.03
    assert table.loc["model", "rmse"] < 1.05 * table.loc["gene_mean", "rmse"]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="each of 250 cells, got 3 rows"):
        score_entry_imputation({"z": ridge_entries_on(lambda s: np.ones((3, 2)))}, COUNTS)
    with pytest.raises(ValueError, match="'share' that hides some of"):
        score_entry_imputation({}, COUNTS, share=1.0)
    with pytest.raises(ValueError, match="each of 250 cells, got 3"):
        score_entry_imputation({}, COUNTS, SLIDE.pos[:3])
    with pytest.raises(ValueError, match="all hidden entries"):
        score_entry_imputation({"z": lambda s: s.log[1:]}, COUNTS)
    with pytest.raises(ValueError, match="'num_repeats' of at least 1"):
        score_entry_imputation({}, COUNTS, num_repeats=0)
