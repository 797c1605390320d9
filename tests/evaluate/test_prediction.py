import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spatiagraph.evaluate.prediction import (
    depth_terms,
    gene_pearson,
    mean_and_std,
    pearson_given,
    prediction_scores,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_correlation_equals_numpy_s_gene_by_gene():
    t, p = normal(50, 6), normal(50, 6, seed=1) + normal(50, 6)
    loop = [np.corrcoef(t[:, g], p[:, g])[0, 1] for g in range(6)]
    np.testing.assert_allclose(gene_pearson(t, p), loop, rtol=1e-12)


def test_a_perfect_prediction_scores_one_and_the_mean_scores_nothing():
    t = normal(40, 3)
    perfect = prediction_scores(t, t, normal(40, 2, seed=1))
    assert perfect["pearson_mean"] == pytest.approx(1)
    assert perfect["pearson_given_depth"] == pytest.approx(1)
    assert perfect["rmse"] == perfect["mse"] == 0
    mean = prediction_scores(t, np.broadcast_to(t.mean(0), t.shape))
    assert mean["pearson_mean"] == mean["pearson_median"] == 0
    assert mean["rmse"] == pytest.approx(t.std(0).mean())


def test_partial_correlation_equals_that_of_regression_residuals():
    c, t, p = normal(60, 2), normal(60, 4, seed=1), normal(60, 4, seed=2)
    t, p = t + 3 * c[:, :1], p + 2 * c[:, 1:] + t
    design = np.column_stack([np.ones(60), c])
    left = [y - design @ np.linalg.lstsq(design, y, rcond=None)[0] for y in (t, p)]
    np.testing.assert_allclose(pearson_given(t, p, c), gene_pearson(*left), rtol=1e-9)


def test_a_prediction_that_knows_depth_alone_scores_zero_given_depth():
    counts = csr_matrix(np.random.default_rng(0).poisson(5, (80, 30)) * np.arange(1, 81)[:, None])
    terms = depth_terms(counts)
    truth = np.log1p(counts.toarray())
    guess = terms @ normal(2, 30)
    assert gene_pearson(truth, guess * np.sign(guess[-1] - guess[0])).mean() > 0.5
    assert np.abs(pearson_given(truth, guess, terms)).max() == 0


def test_depth_of_an_empty_cell_is_that_of_a_single_molecule():
    want = [[0, 0], [np.log(3), np.log(3) ** 2]]
    np.testing.assert_allclose(depth_terms(csr_matrix([[0, 0], [2, 1]])), want)


def test_deviation_over_runs_is_that_of_a_sample():
    got = mean_and_std([{"a": 1.0}, {"a": 3.0}])
    assert got == {"a": 2.0, "a_std": pytest.approx(np.sqrt(2))}
    assert np.isnan(mean_and_std([{"a": 1.0}])["a_std"])


def test_predictions_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\[4, 2\] \(cells, genes\), got \[4, 3\]"):
        gene_pearson(np.ones((4, 2)), np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"in 1 of 2 rows \(first: \[1\]\)"):
        gene_pearson([[0.0], [1.0]], [[0.0], [np.nan]])
