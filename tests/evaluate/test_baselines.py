import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

import spatiagraph as sg
from spatiagraph.evaluate import (
    cluster_domains,
    domain_baselines,
    log_normalize,
    neighbor_mean,
    pca,
)
from spatiagraph.evaluate.genes import standardized_variance


def poisson(num_cells=60, num_genes=25, seed=0):
    rng = np.random.default_rng(seed)
    rate = rng.lognormal(0, 1, num_genes) * rng.lognormal(0, 0.5, (num_cells, 1))
    return rng.poisson(rate).astype(np.float32)


def up_to_sign(z):
    """Principal axes have no sign: make the largest entry of each positive."""
    return z * np.sign(z[np.abs(z).argmax(0), np.arange(z.shape[1])])


def test_cells_of_different_depth_and_equal_shares_become_equal():
    y = log_normalize([[1, 3, 0], [10, 30, 0], [2, 6, 0]]).toarray()
    np.testing.assert_allclose(np.expm1(y), [[2, 6, 0]] * 3, rtol=1e-6)  # median depth is 8


def test_normalisation_matches_a_loop_over_cells():
    x = poisson()
    loop = np.stack([np.log1p(row / row.sum() * 1e4) for row in x])
    np.testing.assert_allclose(log_normalize(x, 1e4).toarray(), loop, rtol=1e-5)


def test_an_empty_cell_stays_empty_and_does_not_move_the_median():
    y = log_normalize([[0, 0], [1, 1], [2, 2]]).toarray()
    np.testing.assert_array_equal(y[0], [0, 0])
    np.testing.assert_allclose(np.expm1(y[1:]), 1.5, rtol=1e-6)


def test_normalised_expression_is_not_brought_to_a_depth_again():
    x = poisson() / 3
    np.testing.assert_allclose(
        log_normalize(x, expression="normalized").toarray(), np.log1p(x), rtol=1e-6
    )


def test_the_counts_given_are_not_changed():
    x = csr_matrix(poisson())
    x.data[0] = 0  # a stored zero, and entries in no order
    x.indices[:2], x.data[:2] = x.indices[:2][::-1].copy(), x.data[:2][::-1].copy()
    x.has_sorted_indices = x.has_canonical_format = False
    before = x.copy()
    log_normalize(x)
    pca(x)
    np.testing.assert_array_equal(x.indices, before.indices)
    np.testing.assert_array_equal(x.data, before.data)


@pytest.mark.parametrize("value", [-1, np.nan, np.inf])
def test_values_that_are_no_expression_are_refused(value):
    with pytest.raises(ValueError, match="not scaled values"):
        log_normalize([[1, value]])


def test_a_target_below_zero_is_refused():
    with pytest.raises(ValueError, match="'target' to be positive, got -1"):
        log_normalize([[1, 1]], target=-1)
    with pytest.raises(ValueError, match="expression"):
        log_normalize([[1, 1]], expression="log")


def test_components_equal_those_of_the_dense_matrix():
    x = poisson()
    dense = PCA(10, svd_solver="full").fit_transform(log_normalize(x).toarray().astype(np.float64))
    got = pca(x, num_components=10)
    assert got.dtype == np.float32
    np.testing.assert_allclose(up_to_sign(got), up_to_sign(dense), atol=1e-4)


def test_only_the_most_variable_genes_are_used():
    x = poisson(num_genes=40)
    chosen = np.sort(np.argsort(-standardized_variance(csr_matrix(x)))[:12])
    log = log_normalize(x).toarray()[:, chosen]  # depth counts all genes, not the chosen ones
    dense = PCA(4, svd_solver="full").fit_transform(log.astype(np.float64))
    np.testing.assert_allclose(up_to_sign(pca(x, 4, 12)), up_to_sign(dense), atol=1e-4)


def test_normalised_genes_are_chosen_by_the_variance_of_their_logarithm():
    x = poisson(num_genes=40) / 3
    log = np.log1p(x)
    dense = log[:, np.sort(np.argsort(-log.var(0))[:12])].astype(np.float64)
    np.testing.assert_allclose(
        up_to_sign(pca(x, 4, 12, expression="normalized")),
        up_to_sign(PCA(4, svd_solver="full").fit_transform(dense)),
        atol=1e-4,
    )


def test_genes_seen_in_two_cells_are_not_looked_at():
    x = poisson()
    rare = np.zeros((60, 2), np.float32)
    rare[:2] = 500
    np.testing.assert_allclose(pca(np.hstack([x, rare]), 5), pca(x, 5), atol=1e-5)


def test_components_do_not_depend_on_the_order_of_cells_or_genes():
    x = poisson()
    rng = np.random.default_rng(0)
    cells, genes = rng.permutation(60), rng.permutation(25)
    z = up_to_sign(pca(x, 5))
    np.testing.assert_allclose(up_to_sign(pca(x[cells], 5)), z[cells], atol=1e-4)
    np.testing.assert_allclose(up_to_sign(pca(x[:, genes], 5)), z, atol=1e-4)


def test_small_slides_get_as_many_components_as_there_are():
    assert pca(poisson(8, 25)).shape == (8, 7)
    assert pca(poisson(60, 5)).shape == (60, 4)
    with pytest.raises(ValueError, match="1 such genes"):
        pca([[1, 5], [1, 0], [2, 0]])
    with pytest.raises(ValueError, match="'num_components' of at least 1, got 0"):
        pca(poisson(), 0)


def test_neighbor_mean_matches_brute_force():
    rng = np.random.default_rng(0)
    pos, z = rng.uniform(0, 100, (300, 2)), rng.normal(size=(300, 4))
    near = cKDTree(pos).query(pos, k=8)[1]  # the cell is its own nearest
    np.testing.assert_allclose(neighbor_mean(z, pos, k=7), z[near].mean(1), rtol=1e-12)


def test_means_do_not_cross_slides():
    rng = np.random.default_rng(0)
    pos, z = rng.uniform(0, 100, (80, 2)), rng.normal(size=(80, 3))
    slide = rng.permutation(np.repeat(["a", "b"], 40))
    both = neighbor_mean(z, pos, k=4, slide=slide)
    for name in "ab":
        rows = slide == name
        np.testing.assert_allclose(both[rows], neighbor_mean(z[rows], pos[rows], k=4))
    assert np.abs(both - neighbor_mean(z, pos, k=4)).max() > 0.1


def test_means_keep_the_precision_and_accept_torch():
    rng = np.random.default_rng(0)
    pos, z = rng.uniform(0, 100, (30, 2)), rng.normal(size=(30, 3)).astype(np.float32)
    got = neighbor_mean(torch.from_numpy(z), torch.from_numpy(pos), k=3)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, neighbor_mean(z.astype(np.float64), pos, k=3), atol=1e-6)


def test_an_embedding_of_other_cells_is_refused():
    with pytest.raises(ValueError, match="each of 4 positions, got 3 rows"):
        neighbor_mean(np.ones((3, 2)), np.arange(8.0).reshape(4, 2), k=1)
    with pytest.raises(ValueError, match=r"NaN or infinity in 1 of 2 rows \(first: \[1\]\)"):
        neighbor_mean([[0.0], [np.nan]], [[0, 0], [1, 0]], k=1)


def test_every_baseline_has_a_row_per_cell():
    slide = sg.make_tissue(200, image=None, seed=0)
    table = domain_baselines(slide.counts, slide.pos)
    assert list(table) == ["pca30", "pca30_nbr15", "depth_nbr15", "xy_only"]
    assert {z.shape for z in table.values()} == {(200, 30), (200, 1), (200, 2)}
    moved = domain_baselines(slide.counts, slide.pos + 1000)
    np.testing.assert_allclose(moved["xy_only"], table["xy_only"], atol=1e-9)


def test_spatial_means_find_niches_that_single_cells_do_not_show():
    slide = sg.make_tissue(1000, image=None, seed=0)
    z = pca(slide.counts)
    niche = slide.adata.obs["niche"]
    own, mean = (
        adjusted_rand_score(niche, cluster_domains(x, niche.nunique()))
        for x in (z, neighbor_mean(z, slide.pos))
    )
    assert mean > own + 0.2
