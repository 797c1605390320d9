import numpy as np
import pytest
from scipy.sparse import csr_matrix, hstack

from spatiagraph.data.tokens import fit_medians, ragged_rank_tokens, rank_tokens

A7_COUNTS, A7_MEDIANS = csr_matrix(np.array([[4, 0, 6, 10]], np.float32)), [2, 1, 1, 5]
F5_COUNTS = csr_matrix(np.array([[10, 2, 0, 4, 4], [1, 1, 1, 1, 0]], np.float32))
FIRST_GENE = 27


def random_counts(num_cells=60, num_genes=90, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.negative_binomial(0.5, 0.1, (num_cells, num_genes)) * (rng.random(num_genes) < 0.8)
    x[3] = 0
    return csr_matrix(x.astype(np.float32))


def one_cell_at_a_time(counts, token, median, ties, max_len, cls):
    rows = []
    for cell in counts.toarray():
        genes = [g for g in range(len(cell)) if cell[g] > 0 and token[g] >= 0]
        if ties == "vocabulary":
            genes.sort(key=lambda g: (-float(cell[g]) / median[g], token[g]))
        else:
            genes.sort(key=lambda g: (-float(cell[g]) / median[g], -cell[g], token[g]))
        rows.append(([] if cls is None else [cls]) + [token[g] for g in genes])
        rows[-1] = rows[-1][:max_len]
    width = max(map(len, rows))
    return np.array([r + [0] * (width - len(r)) for r in rows]), [len(r) for r in rows]


def test_order_of_the_published_example():
    """SToFM fact A7."""
    got = rank_tokens(A7_COUNTS, [2, 3, 4, 5], A7_MEDIANS, cls=25_426)
    np.testing.assert_array_equal(got.ids, [[25_426, 4, 2, 5]])
    np.testing.assert_allclose(
        A7_COUNTS.toarray()[0] / 20 * 10_000 / A7_MEDIANS, [1000, 0, 3000, 1000]
    )


def test_multiplying_a_cell_changes_nothing():
    """SToFM fact A7, SpatialFormer fact F6."""
    counts = random_counts()
    median = np.random.default_rng(1).uniform(0.1, 30, 90)
    for ties in ("vocabulary", "count"):
        one = rank_tokens(counts, np.arange(90), median, ties=ties)
        seven = rank_tokens(counts * np.float32(7), np.arange(90), median, ties=ties)
        np.testing.assert_array_equal(one.ids, seven.ids)


def test_long_cells_are_cut_with_cls_counted():
    """SToFM fact A7."""
    counts = csr_matrix(np.ones((1, 3000), np.float32))
    got = rank_tokens(counts, np.arange(3000) + 2, cls=25_426)
    assert got.ids.shape == (1, 2048)
    assert got.ids[0, 0] == 25_426
    np.testing.assert_array_equal(got.ids[0, 1:], np.arange(2047) + 2)
    assert got.length.tolist() == [2048]


def test_order_with_fitted_medians_and_with_ones():
    """SpatialFormer fact F5."""
    token = FIRST_GENE + np.arange(5)
    got = rank_tokens(F5_COUNTS, token, fit_medians(F5_COUNTS), ties="count")
    named = [["ABCDE"[t - FIRST_GENE] for t in row] for row in got.ids]
    assert named == [["A", "E", "D", "B"], ["B", "D", "C", "A"]]
    plain = rank_tokens(F5_COUNTS, token, ties="count")
    named = [["ABCDE"[t - FIRST_GENE] for t in row] for row in plain.ids]
    assert named == [["A", "D", "E", "B"], ["A", "B", "C", "D"]]


def test_gene_order_zero_genes_and_unknown_genes_do_not_matter():
    """SpatialFormer fact F6."""
    counts, rng = random_counts(), np.random.default_rng(1)
    token, median = FIRST_GENE + np.arange(90), rng.uniform(0.1, 30, 90)
    expected = rank_tokens(counts, token, median, ties="count")
    perm = rng.permutation(90)
    turned = rank_tokens(counts[:, perm], token[perm], median[perm], ties="count")
    np.testing.assert_array_equal(turned.ids, expected.ids)
    more = csr_matrix(hstack([counts, csr_matrix((60, 4), dtype=np.float32)]))
    zeros = rank_tokens(more, np.append(token, [500, 501, 502, 503]), np.append(median, [1] * 4))
    np.testing.assert_array_equal(zeros.ids, rank_tokens(counts, token, median).ids)
    extra = csr_matrix(hstack([counts, random_counts(60, 7, seed=5)]))
    unknown = rank_tokens(
        extra, np.append(token, [-1] * 7), np.append(median, [1] * 7), ties="count"
    )
    np.testing.assert_array_equal(unknown.ids, expected.ids)
    np.testing.assert_array_equal(unknown.unknown, (extra[:, 90:] > 0).sum(1).A1)


@pytest.mark.parametrize("ties", ["vocabulary", "count"])
@pytest.mark.parametrize("max_len", [12, 500])
@pytest.mark.parametrize("cls", [None, 999])
@pytest.mark.parametrize("max_pairs", [1 << 24, 0], ids=["by table", "by sort"])
def test_tokens_match_a_loop_over_cells(ties, max_len, cls, max_pairs):
    counts, rng = random_counts(), np.random.default_rng(2)
    token = rng.permutation(90) + 1
    token[[5, 40]] = -1
    median = rng.choice([0.5, 1.0, 2.0, 4.0], 90)  # many exact ties
    options = {"ties": ties, "max_len": max_len, "cls": cls, "max_pairs": max_pairs}
    got = rank_tokens(counts, token, median, **options)
    ids, length = one_cell_at_a_time(counts, token, median, ties, max_len, cls)
    np.testing.assert_array_equal(got.ids, ids)
    np.testing.assert_array_equal(got.length, length)
    ragged = ragged_rank_tokens(counts, token, median, **options)
    np.testing.assert_array_equal(np.diff(ragged.ptr), length)
    np.testing.assert_array_equal(
        ragged.ids, np.concatenate([row[:n] for row, n in zip(ids, length, strict=True)])
    )


def test_no_cells_give_no_tokens():
    none = csr_matrix((0, 3), dtype=np.float32)
    assert rank_tokens(none, [1, 2, 3], cls=9).ids.shape[0] == 0
    assert ragged_rank_tokens(none, [1, 2, 3]).ptr.tolist() == [0]


def test_a_cell_without_known_genes_is_cls_alone_and_flagged():
    counts = csr_matrix(np.array([[0, 3], [2, 0], [0, 0]], np.float32))
    got = rank_tokens(counts, [7, -1], cls=1)
    np.testing.assert_array_equal(got.ids, [[1, 0], [1, 7], [1, 0]])
    assert got.empty.tolist() == [True, False, True]
    assert got.length.tolist() == [1, 2, 1]


def test_values_that_are_not_counts_need_force():
    values = csr_matrix(np.array([[0.5, 2.5, 1.5]], np.float32))
    with pytest.raises(ValueError, match="Expected raw counts"):
        rank_tokens(values, [0, 1, 2])
    assert rank_tokens(values, [0, 1, 2], force=True).ids.tolist() == [[1, 2, 0]]


def test_stored_zeros_are_not_expressed():
    counts = csr_matrix((np.array([0.0, 2.0], np.float32), [0, 1], [0, 2]), shape=(1, 2))
    assert rank_tokens(counts, [3, 4]).ids.tolist() == [[4]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": [1, 2, 3]}, "one token and one median for each of 4 genes"),
        ({"tokens": [1, 2, 2, 3]}, "1 tokens more than once .first: .2"),
        ({"medians": [1, 0, 1, np.nan]}, r"positive medians.*columns \[1, 3\]"),
        ({"ties": "random"}, "ties"),
        ({"max_len": 0}, "room for a gene"),
        ({"counts": csr_matrix([[1.0, -1, 0, 0]])}, "non-negative finite counts"),
        ({"counts": csr_matrix([[1.0, np.nan, 0, 0]])}, r"1 cells \(first: \[0\]\)"),
    ],
)
def test_wrong_input_is_refused(change, message):
    good = {"counts": A7_COUNTS, "tokens": [2, 3, 4, 5], "medians": A7_MEDIANS}
    with pytest.raises(ValueError, match=message):
        rank_tokens(**{**good, **change})
