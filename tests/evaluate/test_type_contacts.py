"""Types that are said to be neighbours, beside types dealt anew."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from spatiagraph.evaluate import type_contacts

TYPES = np.repeat(["A", "B", "C"], [60, 30, 10])
PAIRS = np.stack(np.triu_indices(100, 1), axis=1)


def test_shares_are_those_of_a_loop_and_symmetric():
    said = np.random.default_rng(0).random(len(PAIRS))
    found = type_contacts(PAIRS[:, ::-1], said, TYPES, num_permutations=5)
    for row in found.table.itertuples():
        both = {row.type_a, row.type_b}
        own = [s for s, (i, j) in zip(said, PAIRS, strict=True) if {TYPES[i], TYPES[j]} == both]
        assert row.pairs == len(own)
        assert row.share == pytest.approx(np.mean(own))
    shares = found.matrix("share")
    assert_allclose(shares, shares.T)
    assert len(found.table) == 6


def test_abundant_types_and_cells_that_all_are_near_make_no_contact_by_themselves():
    """Answers that follow cells, not types, and answers that follow one pair of types."""
    rng = np.random.default_rng(0)
    busy = rng.random(100) < 0.2
    random = type_contacts(PAIRS, busy[PAIRS].any(axis=1), TYPES, num_permutations=400)
    assert (random.table["q"] > 0.05).all()
    names = np.sort(TYPES[PAIRS], axis=1)
    together = (names == ["B", "C"]).all(axis=1) & (rng.random(len(PAIRS)) < 0.5)
    planted = type_contacts(PAIRS, together, TYPES, num_permutations=400)
    best = planted.table.sort_values("z").iloc[-1]
    assert (best["type_a"], best["type_b"]) == ("B", "C")
    assert best["q"] < 0.05
    assert best["expected"] < 0.1 < 0.4 < best["share"]


def test_an_answer_about_one_pair_has_p_of_one_where_all_deals_are_alike():
    found = type_contacts([[0, 1]], [True], ["A", "B"], num_permutations=50)
    assert found.table[["share", "expected", "p"]].to_numpy().tolist() == [[1, 1, 1]]
    assert np.isnan(found.matrix()[0, 0])


@pytest.mark.parametrize(
    ("pairs", "said", "types", "match"),
    [
        ([[0, 1]], [2.0], ["A", "B"], "not log-odds"),
        ([[0, 2]], [1.0], ["A", "B"], "rows of 2 cells"),
        ([[0, 1]], [1.0, 0.0], ["A", "B"], "an answer for each"),
        ([[0, 1]], [1.0], ["A", "A"], "two types"),
    ],
)
def test_answers_that_do_not_fit_are_refused(pairs, said, types, match):
    with pytest.raises(ValueError, match=match):
        type_contacts(pairs, said, types)
