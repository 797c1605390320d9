"""Hidden genes of donors never seen: known answers, and nothing of them is learned from."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spatiagraph.evaluate import (
    Cells,
    donor_splits,
    ridge_on,
    score_transfer_imputation,
    summarize_transfer,
)
from spatiagraph.evaluate.inputs import UnscorableError

DONOR = np.repeat(["ann", "bob", "cid"], 60)


def cohort(num_genes=20, seed=0):
    """Counts of three donors that follow three factors, the same in all."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(180, 3))
    rate = np.exp(0.5 * z @ rng.normal(size=(3, num_genes)) + 1.5)
    counts = csr_matrix(rng.poisson(rate).astype(np.float32))
    return Cells(counts, rng.uniform(0, 300, (180, 2)), DONOR, "counts"), z


def changed(cells, where):
    """The same cells with other counts in some places."""
    counts = cells.counts.toarray()
    counts[where] = np.random.default_rng(9).poisson(7, counts[where].shape)
    return cells._replace(counts=csr_matrix(counts))


def fields(split, *, without=()):
    """Arrays of a split by name."""
    named = {k: v for k, v in vars(split).items() if k not in without}
    return {k: v.toarray() if isinstance(v, csr_matrix) else v for k, v in named.items()}


def test_ridge_finds_genes_that_are_linear_in_the_visible_ones_and_the_mean_does_not():
    rng = np.random.default_rng(0)
    z = rng.uniform(0, 1, (180, 3))  # ten genes of rank three: each is linear in any eight others
    values = csr_matrix(np.expm1(z @ rng.uniform(0.2, 1, (3, 10))).astype(np.float32))
    cells = Cells(values, rng.uniform(0, 300, (180, 2)), DONOR, "normalized")
    table = score_transfer_imputation({}, cells, DONOR, baselines=["ridge", "train_mean"])
    mean = summarize_transfer(table)
    assert mean.loc["ridge", "pearson_mean"] > 0.999
    assert mean.loc["ridge", "rmse"] < 0.01
    assert mean.loc["train_mean", "pearson_mean"] == 0
    assert (mean["num_donors"] == 3).all()
    assert (table["num_genes"] == 2).all()
    assert (table["num_cells"] == 60).all()


def test_a_fifth_of_the_genes_of_each_donor_in_turn_is_hidden():
    cells, _ = cohort()
    splits = list(donor_splits(cells, DONOR))
    assert [name for name, _, _ in splits] == ["ann", "bob", "cid"]
    hidden = [set(split.hidden.tolist()) for _, split, _ in splits]
    assert [len(genes) for genes in hidden] == [4, 4, 4]
    assert not hidden[0] & hidden[1]
    for name, split, truth in splits:
        assert set(DONOR[split.test]) == {name}
        assert name not in set(DONOR[split.train])
        assert {*split.hidden} | {*split.visible} == {*range(20)}
        total = cells.counts.toarray().sum(axis=1, keepdims=True)
        assert split.depth == np.median(total[split.train])
        log = np.log1p(cells.counts.toarray() / total * split.depth)
        np.testing.assert_allclose(truth, log[np.ix_(split.test, split.hidden)], rtol=1e-5)


@pytest.mark.parametrize("num_genes", [20, 1100])  # of the second, a thousand are chosen
def test_nothing_of_the_held_out_donor_decides_what_is_learned_and_what_is_hidden(num_genes):
    cells, _ = cohort(num_genes)
    other = changed(cells, DONOR == "ann")
    (_, first, truth), (_, second, new) = (next(donor_splits(c, DONOR)) for c in (cells, other))
    assert len(first.visible) + len(first.hidden) == min(num_genes, 1000)
    for key, value in fields(first, without=["counts"]).items():
        np.testing.assert_array_equal(value, fields(second)[key], err_msg=key)
    np.testing.assert_array_equal(
        first.counts[first.train].toarray(), second.counts[second.train].toarray()
    )
    assert not np.allclose(truth, new)


def test_a_gene_that_only_the_held_out_donor_shows_takes_no_part_there():
    cells, _ = cohort()
    counts = cells.counts.toarray()
    counts[DONOR != "ann", 7] = 0
    cells = cells._replace(counts=csr_matrix(counts))
    for name, split, _ in donor_splits(cells, DONOR):
        assert (7 in {*split.hidden, *split.visible}) == (name != "ann")


def test_a_method_sees_nothing_of_the_hidden_counts_of_the_held_out_donor():
    cells, _ = cohort()
    _, split, _ = next(donor_splits(cells, DONOR))
    other = changed(cells, np.ix_(split.test, split.hidden))
    _, again, _ = next(donor_splits(other, DONOR))
    for key, value in fields(split).items():
        np.testing.assert_array_equal(value, fields(again)[key], err_msg=key)


def test_genes_are_chosen_among_those_a_function_of_the_training_cells_names():
    cells, _ = cohort()
    asked = []

    def genes(train):
        asked.append(set(DONOR[train]))
        return np.arange(10)

    taking_part = cells.counts.toarray()[:, :10]
    share = taking_part / taking_part.sum(axis=1, keepdims=True)  # of their total, not of all
    for _, split, truth in donor_splits(cells, DONOR, genes=genes):
        assert {*split.hidden} | {*split.visible} == {*range(10)}
        expected = np.log1p(split.depth * share[np.ix_(split.test, split.hidden)])
        np.testing.assert_allclose(truth, expected, rtol=1e-5)
    assert asked == [{"bob", "cid"}, {"ann", "cid"}, {"ann", "bob"}]


def test_methods_stand_beside_baselines():
    cells, z = cohort()
    methods = {"knows": ridge_on(lambda split: z), "noise": ridge_on(lambda split: z[::-1])}
    table = score_transfer_imputation(methods, cells, DONOR)
    mean = summarize_transfer(table)
    assert [*mean.index] == [
        "knows", "noise", "train_mean", "ridge_depth", "ridge", "knn_expr", "ridge_own_nbr"
    ]  # fmt: skip
    assert mean.loc["knows", "pearson_mean"] > mean.loc["ridge", "pearson_mean"] > 0.3
    assert abs(mean.loc["noise", "pearson_mean"]) < 0.15


def test_unusable_requests_are_refused():
    cells, z = cohort()
    with pytest.raises(ValueError, match="at least two donors, got 1"):
        next(donor_splits(cells, ["ann"] * 180))
    with pytest.raises(ValueError, match="'donor' for each of 180 cells, got 3"):
        next(donor_splits(cells, ["a", "b", "c"]))
    with pytest.raises(UnscorableError, match="5 genes or more .* got 3 where donor 'ann'"):
        next(donor_splits(cells, DONOR, genes=lambda train: np.arange(3)))
    with pytest.raises(ValueError, match="no slide in both"):
        next(donor_splits(cells._replace(slide=np.zeros(180)), DONOR))
    with pytest.raises(ValueError, match="other names than those of baselines, got ridge"):
        score_transfer_imputation({"ridge": ridge_on(lambda split: z)}, cells, DONOR)
    with pytest.raises(ValueError, match="among .* got nbr_mean_train"):
        score_transfer_imputation({}, cells, DONOR, baselines=["nbr_mean_train"])
