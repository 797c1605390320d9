import numpy as np
import pytest
from scipy.sparse import csr_matrix

import spatiagraph as sg
from spatiagraph.evaluate.genes import loess, standardized_variance


def counts(num_cells=200, num_genes=600, seed=0):
    rng = np.random.default_rng(seed)
    mean = rng.lognormal(-0.5, 1.5, num_genes)
    noisy = mean * rng.gamma(3, 1 / 3, (num_cells, num_genes))
    return rng.poisson(noisy).astype(np.float32)


def test_loess_leaves_a_parabola_as_it_is():
    x = np.sort(np.random.default_rng(0).uniform(-3, 5, 300))
    np.testing.assert_allclose(loess(x, 2 * x**2 - x + 1), 2 * x**2 - x + 1, atol=1e-9)


def test_loess_is_the_weighted_fit_at_its_knots_and_close_to_it_between():
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(0, 6, 385))  # every twelfth point is a knot
    y = np.sin(x) + 0.2 * rng.normal(size=385)
    exact = np.empty(385)
    for i, here in enumerate(x):
        distance = np.abs(x - here)
        weight = (1 - (distance / np.sort(distance)[114]).clip(max=1) ** 3) ** 3  # 115 = 0.3 n
        exact[i] = np.polynomial.Polynomial.fit(x, y, 2, w=np.sqrt(weight))(here)
    np.testing.assert_allclose(loess(x, y)[::12], exact[::12], atol=1e-9)
    np.testing.assert_allclose(loess(x, y), exact, atol=0.01)


def test_loess_survives_many_equal_points():
    x = np.repeat([0.0, 1.0, 2.0, 3.0], [90, 2, 2, 6])
    np.testing.assert_allclose(loess(x, x**2), x**2, atol=1e-6)
    np.testing.assert_allclose(loess(np.zeros(4), np.arange(4.0)), 1.5)


def test_score_is_the_clipped_variance_about_the_mean():
    x = counts()
    x[0, 7] = 5000  # beyond the clip
    mean, variance = x.mean(0, dtype=float), x.var(0, ddof=1, dtype=float)
    varies = variance > 0
    sigma = np.ones(600)
    sigma[varies] = np.sqrt(10 ** loess(np.log10(mean[varies]), np.log10(variance[varies])))
    clipped = np.minimum(x, mean + sigma * np.sqrt(200))
    assert (clipped < x).any()
    dense = ((clipped - mean) ** 2).sum(0) / 199 / sigma**2
    np.testing.assert_allclose(standardized_variance(csr_matrix(x)), dense, rtol=1e-6)


def test_genes_equal_those_of_scanpy(real_data):
    pytest.importorskip("skmisc.loess", reason="scanpy ranks by seurat_v3 with scikit-misc")
    from scanpy.pp import highly_variable_genes

    slide = sg.read(real_data / "her2st" / "A1.h5ad", image=False, pitch_um=200)
    x = slide.counts
    x = x[:, np.flatnonzero(x.getnnz(0) >= 3)]
    slide = slide.adata[:, np.asarray((slide.counts > 0).sum(0)).ravel() >= 3].copy()
    highly_variable_genes(slide, flavor="seurat_v3", n_top_genes=2000)
    score = standardized_variance(x)
    np.testing.assert_allclose(score, slide.var["variances_norm"], rtol=5e-3)
    ours = set(np.argsort(-score)[:2000])
    assert len(ours & set(np.flatnonzero(slide.var["highly_variable"]))) >= 1995


def test_the_gene_that_varies_more_than_its_peers_comes_first():
    x = counts()
    x[:, 11] = np.random.default_rng(1).permutation(np.repeat([0, 8], 100))
    assert standardized_variance(csr_matrix(x)).argmax() == 11


def test_genes_that_do_not_vary_score_zero():
    x = counts()
    x[:, 3], x[:, 4] = 7, 0
    score = standardized_variance(csr_matrix(x))
    np.testing.assert_array_equal(score[[3, 4]], [0, 0])
    assert np.isfinite(score).all()
    np.testing.assert_array_equal(standardized_variance(csr_matrix(np.full((3, 2), 2.0))), [0, 0])


def test_the_order_of_cells_and_genes_does_not_matter():
    x = counts()
    rng = np.random.default_rng(0)
    cells, genes = rng.permutation(200), rng.permutation(600)
    score = standardized_variance(csr_matrix(x))
    got = standardized_variance(csr_matrix(x[cells][:, genes]))
    np.testing.assert_allclose(got, score[genes], rtol=1e-9)
