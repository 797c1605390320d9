import numpy as np
import pytest
from scipy.sparse import csr_matrix, random_array

from spatiagraph.data.variability import gene_variability


def dense_variance(x):
    """Variance of Pearson residuals, written out."""
    mean = x.sum(1, keepdims=True) * x.sum(0) / x.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = np.nan_to_num((x - mean) / np.sqrt(mean + mean**2 / 100))
    return residual.clip(-np.sqrt(len(x)), np.sqrt(len(x))).var(0)


@pytest.mark.parametrize("num_cells", [20, 400])
def test_variance_equals_that_of_the_dense_residuals(num_cells):
    rng = np.random.default_rng(0)
    x = rng.negative_binomial(1, 0.4, (num_cells, 50)) * (rng.random((num_cells, 50)) < 0.4)
    x[:, 3] = 0
    counts = csr_matrix(x.astype(np.float32))
    got = gene_variability(counts, chunk_size=700)  # several blocks of rows and of depths
    np.testing.assert_allclose(got, dense_variance(x.astype(float)), rtol=1e-9, atol=1e-12)
    assert got[3] == 0


def test_interpolation_over_many_genes_is_close_to_exact():
    rng = np.random.default_rng(0)
    rate = rng.lognormal(-1, 1.5, 3000)
    x = rng.poisson(rate * rng.lognormal(0, 0.5, (300, 1)))
    got = gene_variability(csr_matrix(x.astype(np.float32)))
    np.testing.assert_allclose(got, dense_variance(x.astype(float)), rtol=1e-4, atol=1e-6)


def test_counting_noise_scores_near_one_at_any_mean():
    rng = np.random.default_rng(0)
    rate = np.repeat([0.05, 0.5, 5.0, 50.0], 50)
    score = gene_variability(csr_matrix(rng.poisson(rate, (2000, 200)).astype(np.float32)))
    np.testing.assert_allclose(score.reshape(4, 50).mean(1)[:3], 1, atol=0.05)
    assert score.max() < 1.3


def test_normalised_expression_uses_the_variance_of_the_logarithm():
    x = csr_matrix(random_array((40, 6), density=0.5, rng=np.random.default_rng(0)))
    np.testing.assert_allclose(
        gene_variability(x, "normalized"), np.log1p(x.toarray()).var(0), rtol=1e-12
    )


def test_an_empty_matrix_scores_zero():
    np.testing.assert_array_equal(gene_variability(csr_matrix((3, 2), dtype=np.float32)), [0, 0])
