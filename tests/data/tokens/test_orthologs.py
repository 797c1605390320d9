import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spatiagraph.data.tokens import merge_orthologs, rank_tokens

TABLE = {"mA": "HA", "mB": "HB", "mB2": "HB"}


def test_two_mouse_genes_of_one_human_gene_are_added_up():
    """SToFM A7."""
    counts = csr_matrix(np.array([[5, 1, 2, 4], [0, 0, 3, 1]], np.float32))
    human = merge_orthologs(counts, ["mA", "mB", "mB2", "mX"], TABLE)
    assert human.gene_ids == ["HA", "HB"]
    np.testing.assert_array_equal(human.counts.toarray(), [[5, 3], [0, 3]])
    same = rank_tokens(csr_matrix(np.array([[5, 3], [0, 3]], np.float32)), [7, 8])
    np.testing.assert_array_equal(rank_tokens(human.counts, [7, 8]).ids, same.ids)


def test_genes_without_counterpart_are_dropped_and_reported():
    counts = csr_matrix(np.array([[5, 1, 2, 4], [0, 0, 3, 1]], np.float32))
    human = merge_orthologs(counts, ["mA", "mB", "mB2", "mX"], TABLE)
    assert human.dropped == ["mX"]
    assert human.dropped_share == pytest.approx(5 / 16)


def test_no_counterpart_at_all_is_refused():
    with pytest.raises(ValueError, match=r"none of its 3 in a, b"):
        merge_orthologs(csr_matrix([[1, 2]]), ["a", "b"], TABLE)
    with pytest.raises(ValueError, match="got 1 for 2"):
        merge_orthologs(csr_matrix([[1, 2]]), ["a"], TABLE)
