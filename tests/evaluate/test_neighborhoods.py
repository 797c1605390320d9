"""What is around cells, and pairs of cells beside what needs no model."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.sparse import csr_matrix
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import f1_score

from spatiagraph.evaluate import (
    TypeAdjacency,
    calibration_error,
    composition_divergence,
    expression_cosine,
    jensen_shannon,
    neighbor_composition,
    score_cell_pairs,
)
from spatiagraph.graph import radius_graph


def test_neighbours_of_four_cells_by_hand():
    """SpatialFormer fact F17: what is around the cell that has three neighbours."""
    pos = np.array([[0.0, 0], [20, 0], [40, 0], [45, 0]])
    edges = radius_graph(pos, 30.0).numpy()
    found = neighbor_composition(edges, ["T", "M", "M", "B"])
    assert_allclose(found.loc[1, ["T", "M", "B"]].to_numpy(float), [1 / 3, 1 / 3, 1 / 3])
    assert found.loc[0].to_dict() == {"B": 0, "M": 1, "T": 0}
    weight = np.where((edges[0] == 1) & (edges[1] == 0), 0.5, 1.0)
    soft = neighbor_composition(edges, ["T", "M", "M", "B"], weight=weight)
    assert_allclose(soft.loc[1, "T"], 0.2)
    alone = neighbor_composition([[0], [1]], ["T", "M"])
    assert alone.loc[1].isna().all()


def test_divergences_by_hand():
    """SpatialFormer fact F19: base 2, not the root, symmetric."""
    p = [[1, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5], [0.7, 0.2, 0.1]]
    q = [[0, 1, 0], [1, 0, 0], [0.2, 0.3, 0.5], [0.1, 0.2, 0.7]]
    assert_allclose(jensen_shannon(p, q), [1, 0.31128, 0, 0.36515], atol=5e-6)
    rng = np.random.default_rng(0)
    a, b = rng.dirichlet(np.ones(6), (2, 50))
    assert_allclose(jensen_shannon(a, b), jensen_shannon(b, a))
    assert_allclose(jensen_shannon(a, b), jensenshannon(a, b, base=2, axis=1) ** 2, atol=1e-9)
    assert jensen_shannon([np.nan, np.nan], [0.5, 0.5]) == 1
    with pytest.raises(ValueError, match="sum to 1"):
        jensen_shannon([2, 0], [1, 0])


def test_divergence_of_each_type_counts_what_was_not_found():
    types = ["A", "A", "B", "B"]
    true = neighbor_composition([[0, 1, 2], [2, 3, 0]], types)
    found = neighbor_composition([[0, 2, 3], [2, 3, 0]], types)
    table = composition_divergence(true, found, types)
    assert table.loc["A"].tolist() == [2, 0, 0.5, 1]  # the mean of those found is right, one is not
    assert table.loc["B"].tolist() == [1, 1, 1, 0]
    with pytest.raises(ValueError, match="same cells and types"):
        composition_divergence(true, found.iloc[:2], types)


@pytest.mark.parametrize(
    ("neighbors", "types", "match"),
    [
        ([[0], [4]], ["A", "B"], "rows of 2 cells"),
        ([[0], [1]], ["A", None], "none of 1"),
        ([0, 1], ["A", "B"], r"\[2, E\]"),
    ],
)
def test_neighbourhoods_that_are_none_are_refused(neighbors, types, match):
    with pytest.raises(ValueError, match=match):
        neighbor_composition(neighbors, types)


def test_pairs_are_scored_beside_the_constant():
    rng = np.random.default_rng(0)
    label = rng.random(400) < 0.5
    odds = np.where(label, 1.0, -1.0) + rng.normal(0, 1.5, 400)
    table = score_cell_pairs(label, {"model": odds}, {"rank": odds})
    assert_allclose(table.loc["model", "F1"], f1_score(label, odds > 0))
    assert_allclose(table.loc["rank", "precision"], table.loc["rank", "recall"])
    constant = table.loc["constant"]
    assert_allclose(constant["F1"], f1_score(label, np.ones(400)))
    assert (constant["recall"], constant["specificity"], constant["AUROC"]) == (1, 0, 0.5)
    assert np.isnan(table.loc["rank", "ECE"])
    sure = score_cell_pairs(label, {"sure": 10 * odds})
    assert sure.loc["sure", "ECE"] > table.loc["model", "ECE"]
    with pytest.raises(ValueError, match="neighbours and of others"):
        score_cell_pairs(np.ones(4), {"model": np.zeros(4)})
    with pytest.raises(ValueError, match="400 finite scores of 'model'"):
        score_cell_pairs(label, {"model": np.where(label, np.nan, 0)})
    with pytest.raises(ValueError, match="got twice: constant, model"):
        score_cell_pairs(label, {"model": odds}, {"model": odds, "constant": odds})


def test_probabilities_that_come_true_are_calibrated():
    p = np.repeat([0.1, 0.3, 0.8], 1000)
    y = np.concatenate([np.arange(1000) < 1000 * v for v in (0.1, 0.3, 0.8)])
    assert calibration_error(y, p) == pytest.approx(0, abs=1e-9)
    assert calibration_error(y, np.full(3000, 0.9)) == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        calibration_error([True], [1.5])


def test_baselines_of_pairs():
    x = csr_matrix(np.array([[1, 0, 3], [2, 0, 6], [0, 4, 0], [0, 0, 0]], dtype=np.float32))
    assert_allclose(expression_cosine(x, [[0, 1], [0, 2], [0, 3]]), [1, 0, 0], atol=1e-6)
    edges = np.array([[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4]])
    known = TypeAdjacency.fitted(edges, ["A", "B", "A", "B", "A", "B"])
    score = known(["A", "B", "B", "C"], [[0, 1], [1, 0], [1, 2], [0, 3]])
    assert score[0] == score[1]
    assert score[0] > 0 > score[2]
    assert score[3] == 0
