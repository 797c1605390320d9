import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spatiagraph.data.tokens import count_tokens

MEASURED = np.arange(80) % 5 != 0


def random_counts(num_cells=40):
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.uniform(0.0, 1.5, (num_cells, 1)), (num_cells, 80)) * MEASURED
    x[3] = 0
    return csr_matrix(x.astype(np.float32))


@pytest.mark.parametrize("length", [5, 30, 64, 1000, None])
def test_no_gene_twice_and_none_that_was_not_measured(length):
    """SPATIA fact 5."""
    counts = random_counts()
    got = count_tokens(counts, MEASURED, length=length, seed=3)
    assert got.genes.shape[1] == min(length or 64, 64)
    assert got.mask.all()
    for row, cell in enumerate(counts.toarray()):
        genes = got.genes[row]
        assert len(np.unique(genes)) == len(genes)
        assert MEASURED[genes].all()
        np.testing.assert_array_equal(got.values[row], cell[genes])


def test_all_expressed_genes_are_kept_where_they_fit():
    """SPATIA fact 5."""
    counts = random_counts()
    got = count_tokens(counts, MEASURED, length=30)
    expressed = (counts > 0).sum(1).A1
    assert (expressed > 30).any()
    assert (expressed < 30).any()
    np.testing.assert_array_equal((got.values > 0).sum(1), np.minimum(expressed, 30))


def test_depth_is_that_of_all_genes_whatever_the_length():
    """SPATIA fact 5."""
    counts = random_counts()
    for length in (1, 10, 1000):
        got = count_tokens(counts, MEASURED, length=length)
        np.testing.assert_array_equal(got.depth, counts.sum(1).A1)
    outside = counts.sum(1).A1 + 17
    np.testing.assert_array_equal(count_tokens(counts, MEASURED, depth=outside).depth, outside)


def test_every_gene_is_as_likely_as_the_next():
    counts = csr_matrix(np.tile(np.arange(20) < 12, (20_000, 1)).astype(np.float32))
    expressed = count_tokens(counts, length=4, seed=1)
    share = np.bincount(expressed.genes.ravel(), minlength=20) / 20_000
    # four standard errors of a share of 1/3
    np.testing.assert_allclose(share[:12], 4 / 12, atol=4 * np.sqrt(2 / 9 / 20_000))
    assert share[12:].sum() == 0
    filled = count_tokens(counts, length=14, seed=1)
    share = np.bincount(filled.genes.ravel(), minlength=20) / 20_000
    np.testing.assert_array_equal(share[:12], 1)
    np.testing.assert_allclose(share[12:], 2 / 8, atol=4 * np.sqrt(3 / 16 / 20_000))


def test_the_draw_depends_on_the_seed_and_the_row_only():
    counts = random_counts()
    draws = [count_tokens(counts, MEASURED, length=10, seed=s).genes for s in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
    np.testing.assert_array_equal(count_tokens(counts[:9], MEASURED, length=10).genes, draws[0][:9])


def test_expressed_genes_alone_are_padded():
    counts = random_counts()
    got = count_tokens(counts, MEASURED, length=30, fill_zeros=False)
    expressed = (counts > 0).sum(1).A1
    np.testing.assert_array_equal(got.mask.sum(1), np.minimum(expressed, 30))
    assert (got.values[got.mask] > 0).all()
    assert got.values[~got.mask].sum() == 0
    assert not got.mask[3].any()


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="'length' of at least 1"):
        count_tokens(random_counts(), length=0)
    with pytest.raises(ValueError, match="'measured' for 80 genes"):
        count_tokens(random_counts(), [True])
    with pytest.raises(ValueError, match=r"unmeasured genes.*\[2\]"):
        count_tokens(csr_matrix([[1, 0, 2]]), [True, True, False])
    with pytest.raises(ValueError, match="'depth' of 40 cells"):
        count_tokens(random_counts(), depth=[1, 2])
