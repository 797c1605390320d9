import numpy as np
import pytest

from spatiagraph.data.tokens import location_index


def test_close_genes_share_an_index_and_chromosomes_never_do():
    """SPATIA fact 7."""
    chromosome = ["1", "1", "1", "1", "2", "2"]
    start = [100, 10_100, 20_101, 29_000, 100, 200]
    np.testing.assert_array_equal(location_index(chromosome, start), [0, 0, 1, 1, 2, 2])


def test_index_does_not_depend_on_the_gene_order():
    """SPATIA fact 7."""
    rng = np.random.default_rng(0)
    chromosome = rng.choice(["1", "2", "10", "X", "chrY", "MT"], 200)
    start = rng.integers(0, 500_000, 200)
    index, perm = location_index(chromosome, start), rng.permutation(200)
    np.testing.assert_array_equal(location_index(chromosome[perm], start[perm]), index[perm])
    assert index.min() == 0
    assert set(np.diff(np.unique(index))) == {1}


def test_chromosomes_are_in_their_usual_order():
    np.testing.assert_array_equal(location_index(["X", "chr10", "2", "2"], [1] * 4), [2, 1, 0, 0])


def test_a_gene_without_place_is_refused():
    with pytest.raises(ValueError, match=r"none for 2 \(first: places \[1, 2\]"):
        location_index(["1", "2", ""], [5, np.nan, 7])
    with pytest.raises(ValueError, match="for 2 genes"):
        location_index(["1", "2"], [5])
