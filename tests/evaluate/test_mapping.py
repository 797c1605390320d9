"""Reference cells mapped onto a tissue."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix

import spatiagraph as sg
from spatiagraph.evaluate import gene_pearson, map_expression, score_imputation, type_profiles


def reference(num_cells=24, num_genes=40, num_hidden=6):
    rng = np.random.default_rng(0)
    shared = rng.gamma(0.5, 2.0, (num_cells, num_genes))
    return shared, rng.gamma(1.0, 1.0, (num_cells, num_hidden))


def test_cells_find_themselves_in_a_shuffled_tissue():
    shared, hidden = reference()
    order = np.random.default_rng(1).permutation(len(shared))
    found = map_expression(csr_matrix(shared), shared[order], hidden)
    assert_allclose(found, hidden[order], atol=0.15)  # a softmax never lets go of all others
    assert gene_pearson(hidden[order], found).min() > 0.999


def test_a_type_of_twice_the_cells_covers_twice_the_places():
    """Mean profiles with weights: the mode of clusters."""
    profiles = np.eye(2)
    tissue = profiles[[0, 0, 1]]
    values = np.array([[1.0], [5.0]])
    assert_allclose(
        map_expression(profiles, tissue, values, weight=[2, 1]), values[[0, 0, 1]], atol=0.15
    )


def test_the_loss_is_that_of_the_paper():
    """One step against numbers worked out from the definition."""
    shared, hidden = reference(5, 4, 2)
    tissue = reference(7, 4, 2)[0]
    weight = np.array([1.0, 2.0, 1.0, 3.0, 1.0])
    share, lr, step = weight / weight.sum(), 0.1, 1e-4

    def loss(logits):
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        placed = (share[:, None] * p).T
        guess = placed @ shared

        def cosine(axis):
            norm = np.linalg.norm(guess, axis=axis) * np.linalg.norm(tissue, axis=axis)
            return ((guess * tissue).sum(axis) / norm).mean()

        kl = (np.log(1 / 7) - np.log(placed.sum(1))).mean()
        return -cosine(0) - 0.5 * cosine(1) + 2.0 * kl

    sign = np.zeros((5, 7))
    for i, j in np.ndindex(5, 7):
        up, down = np.zeros((2, 5, 7))
        up[i, j], down[i, j] = step, -step
        sign[i, j] = np.sign(loss(up) - loss(down))
    logits = -lr * sign  # the first step of Adam
    p = share[:, None] * np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = map_expression(
        shared, tissue, hidden,
        weight=weight, num_steps=1, lr=lr, cell_weight=0.5, density_weight=2.0,
    )  # fmt: skip
    assert_allclose(found, (p.T @ hidden) / p.sum(0)[:, None], rtol=1e-4)


def test_order_of_cells_does_not_matter():
    shared, hidden = reference()
    tissue = shared[:15] + 0.1
    found = map_expression(shared, tissue, hidden, num_steps=30)
    rows, places = (
        np.random.default_rng(2).permutation(24),
        np.random.default_rng(3).permutation(15),
    )
    other = map_expression(shared[rows], tissue[places], hidden[rows], num_steps=30)
    assert_allclose(other, found[places], rtol=1e-3, atol=1e-3)


def test_parts_are_mapped_by_all_of_the_reference():
    shared, hidden = reference()
    tissue = np.repeat(shared, 2, axis=0)  # either half holds every cell
    halves = map_expression(shared, tissue, hidden, max_pairs=24 * 24)
    for start in range(2):
        alone = map_expression(shared, tissue[start::2], hidden)
        assert_allclose(halves[start::2], alone, rtol=1e-4, atol=1e-4)
    assert_allclose(halves, np.repeat(hidden, 2, axis=0), atol=0.15)


def test_it_stands_beside_ridge_where_it_is_named():
    slide = sg.make_tissue(300, num_genes=60, image=None, seed=0)
    table = score_imputation(
        {"mine": lambda s: map_expression(s.log[s.train], s.log[s.test], s.target)},
        slide.counts,
        slide.pos,
        num_splits=3,
        baselines=["train_mean", "tangram_like"],
    )
    r = table["pearson_mean"]
    assert r["tangram_like"] == r["mine"] > 0.1 > r["train_mean"]
    default = score_imputation({}, slide.counts, slide.pos, num_splits=3)
    assert "tangram_like" not in default.index


def test_clusters_of_a_tissue_say_its_hidden_genes():
    slide = sg.make_tissue(150, num_genes=30, image=None, seed=0)
    x, types = np.log1p(slide.counts.toarray()), slide.adata.obs["cell_type"]
    profiles = type_profiles(x, types)
    count = types.value_counts()[profiles.index]
    found = map_expression(
        profiles.to_numpy()[:, :20], x[:, :20], profiles.to_numpy()[:, 20:], weight=count
    )
    known = gene_pearson(x[:, 20:], profiles.loc[types].to_numpy()[:, 20:]).mean()
    assert gene_pearson(x[:, 20:], found).mean() > 0.5 * known


def test_bad_input_is_refused():
    shared, hidden = reference()
    for arguments, options, words in (
        ((shared, shared[:, 1:], hidden), {}, r"the same genes .* spatial \[24, 39\]"),
        ((shared, shared, hidden[1:]), {}, r"values \[23, 6\]"),
        ((shared, shared, hidden), {"weight": np.zeros(24)}, "positive 'weight' for each of 24"),
        ((shared, shared, hidden), {"max_pairs": 23}, "at least the 24 reference cells, got 23"),
        ((shared, shared * np.nan, hidden), {}, "finite 'spatial'"),
    ):
        with pytest.raises(ValueError, match=words):
            map_expression(*arguments, **options)
