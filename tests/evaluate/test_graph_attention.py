"""A graph attention network as classifier: reads neighbours, and trains on training cells alone."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone

from spatiagraph.evaluate import GATClassifier, score_probe


def tissue(num_cells=300, seed=0):
    """Noisy features of two halves of a tissue, which neighbours tell apart."""
    rng = np.random.default_rng(seed)
    pos = rng.uniform(0, 200, (num_cells, 2))
    label = (pos[:, 0] > 100).astype(int)
    return label[:, None] + rng.normal(0, 1.5, (num_cells, 4)), pos, label


def test_neighbours_tell_what_a_cell_alone_does_not():
    z, pos, label = tissue()
    folds, cells = np.arange(300) % 4, np.arange(300)[:, None]
    gat = GATClassifier(z, pos, k=10, channels=8, epochs=60)
    found = score_probe({"gat": cells}, label, folds, classifier=gat)
    alone = score_probe({"z": z}, label, folds)
    assert found.loc["gat", "macro_F1"] > alone.loc["z", "macro_F1"] + 0.05
    shuffled = score_probe(
        {"gat": cells}, np.random.default_rng(1).permutation(label), folds, classifier=gat
    )
    assert shuffled.loc["gat", "accuracy"] < 0.65


def test_training_does_not_depend_on_other_cells():
    z, pos, label = tissue()
    train = np.flatnonzero(pos[:, 1] < 120)
    other = np.setdiff1d(np.arange(300), train)
    options = {"k": 6, "channels": 4, "epochs": 5}
    first = GATClassifier(z, pos, **options).fit(train, label[train])
    changed = z.copy()
    changed[other] = 100
    second = GATClassifier(changed, pos, **options).fit(train, label[train])
    deep = np.flatnonzero(pos[:, 1] < 60)  # neither they nor their neighbours hear the others
    one, two = first.decision_function(deep), second.decision_function(deep)
    assert_array_equal(one, two)
    assert len(deep) > 50
    one, two = first.decision_function(other), second.decision_function(other)
    assert not np.array_equal(one, two)


def test_a_copy_trained_again_is_the_same():
    z, pos, label = tissue(80)
    model = GATClassifier(z, pos, np.arange(80) // 40, k=5, epochs=5, seed=3)
    one, two = (clone(model).fit(np.arange(60), label[:60]).predict(range(80)) for _ in "ab")
    assert_array_equal(one, two)


def test_what_does_not_fit_is_refused():
    z, pos, label = tissue(30)
    with pytest.raises(ValueError, match=r"numbers of 30 cells, got 0…30"):
        GATClassifier(z, pos, k=3).fit(np.arange(31), np.zeros(31))
    with pytest.raises(ValueError, match="labels of 30 cells, got 29"):
        GATClassifier(z, pos, k=3).fit(np.arange(30), label[:29])
    with pytest.raises(ValueError, match="'features' of 30 cells, got 29"):
        GATClassifier(z[:29], pos, k=3).fit(np.arange(29), label[:29])
