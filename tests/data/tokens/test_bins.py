import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spatiagraph.data.tokens import bin_tokens


def random_counts(num_cells=50, num_genes=120):
    rng = np.random.default_rng(0)
    x = rng.negative_binomial(0.6, 0.05, (num_cells, num_genes)) * (rng.random(num_genes) < 0.7)
    x[7], x[8, 1:], x[8, 0] = 0, 0, 4  # no gene; one gene
    x[9, x[9] > 0] = 3  # all equal
    return csr_matrix(x.astype(np.float32))


@pytest.mark.parametrize("num_bins", [4, 51])
@pytest.mark.parametrize("max_pairs", [1 << 24, 0], ids=["by table", "by sort"])
def test_bins_are_the_lowest_numpy_would_allow(num_bins, max_pairs):
    counts = random_counts()
    got = bin_tokens(counts, num_bins, max_pairs=max_pairs).toarray()
    probabilities = np.linspace(0, 1, num_bins - 1)
    differ = 0
    for cell, bins in zip(counts.toarray(), got, strict=True):
        value = cell[cell > 0]
        if len(value):
            edges = np.quantile(value.astype(np.float64), probabilities)
            low, high = np.digitize(value, edges, right=True), np.digitize(value, edges)
            differ += (bins[cell > 0] != np.minimum(low + 1, high)).sum()
    # ours is exact; np.quantile misses a value by a rounding error now and then
    assert differ <= 0.01 * counts.nnz


def test_bins_grow_with_counts_and_zeros_are_bin_zero():
    """SPATIA fact 6."""
    counts = random_counts()
    bins = bin_tokens(counts)
    assert bins.shape == counts.shape
    assert bins.data.min() == 1
    for row in range(counts.shape[0]):
        value, place = counts[row].data, bins[row].data
        order = np.lexsort((place, value))
        assert (np.diff(place[order]) >= 0).all()
        for v in np.unique(value):  # equal values, equal bins
            assert len(np.unique(place[value == v])) == 1
    assert len(np.unique(bins.toarray())) <= 51


def test_bins_do_not_depend_on_the_scale_of_a_cell():
    """SPATIA fact 6."""
    counts = random_counts()
    scale = np.random.default_rng(1).uniform(0.01, 300, (50, 1))
    scaled = csr_matrix(counts.multiply(scale).astype(np.float32))
    np.testing.assert_array_equal(bin_tokens(scaled).toarray(), bin_tokens(counts).toarray())


def test_bins_of_distinct_values_are_the_quantiles():
    counts = csr_matrix(np.arange(1, 51, dtype=np.float32)[None])
    np.testing.assert_array_equal(bin_tokens(counts).toarray(), [np.arange(1, 51)])
    five = csr_matrix(np.array([[10, 40, 20, 50, 30]], np.float32))
    np.testing.assert_array_equal(bin_tokens(five, 4).toarray(), [[1, 2, 1, 3, 2]])


def test_genes_are_scaled_before_binning():
    counts, scale = random_counts(), np.random.default_rng(2).uniform(0.5, 8, 120)
    by_hand = csr_matrix(counts.astype(np.float64).multiply(1 / scale))
    np.testing.assert_array_equal(
        bin_tokens(counts, gene_scale=scale).toarray(), bin_tokens(by_hand).toarray()
    )


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="num_bins"):
        bin_tokens(random_counts(), 2)
    with pytest.raises(ValueError, match="gene_scale"):
        bin_tokens(random_counts(), gene_scale=np.zeros(120))
    with pytest.raises(ValueError, match="non-negative"):
        bin_tokens(csr_matrix([[-1.0, 2.0]]))


def test_no_cell_gives_no_bins():
    assert bin_tokens(csr_matrix((0, 5), dtype=np.float32)).shape == (0, 5)
    assert bin_tokens(csr_matrix((3, 5), dtype=np.float32)).nnz == 0
