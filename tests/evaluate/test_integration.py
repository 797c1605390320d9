"""Batch integration: known answers of types apart and batches mixed."""

import numpy as np
import pytest

from spatiagraph.evaluate import score_integration


@pytest.fixture
def tissue():
    """Two types of two batches, and noise."""
    rng = np.random.default_rng(0)
    kind, batch = np.repeat([0, 1], 200), np.tile([0, 1], 200)
    return kind, batch, rng.normal(0, 1, (400, 2))


def test_what_keeps_types_apart_and_mixes_batches_is_told_from_what_does_not(tissue):
    kind, batch, noise = tissue
    named = {
        "both": noise + 20 * kind[:, None],
        "batches": noise + 20 * batch[:, None],
        "nothing": noise,
    }
    table = score_integration(named, batch, kind, num_neighbors=30)
    assert table.loc["both", ["NMI", "ARI", "connectivity"]].tolist() == [1, 1, 1]
    assert table.loc["both", "type_ASW"] > 0.9
    assert table.loc["both", "batch_ASW"] > 0.9
    assert table.loc["both", "iLISI"] > 0.9
    assert table.loc["batches", "iLISI"] == 0
    assert table.loc["batches", "batch_ASW"] < 0.15
    assert table.loc["batches", "connectivity"] == pytest.approx(0.5, abs=0.02)
    assert table.loc["nothing", "bio"] < 0.25 < 0.9 < table.loc["nothing", "mixing"]
    assert (table["num_cells"] == 400).all()


def test_known_answers_of_four_cells():
    """Silhouettes by hand: of types (9 - 1) / 9 and (8 - 1) / 8 each twice; batches within 0."""
    z = np.array([[0.0], [1.0], [9.0], [10.0]])
    row = score_integration({"z": z}, [0, 1, 0, 1], [0, 0, 1, 1], num_neighbors=1).loc["z"]
    expected = np.mean([1 - 1 / 9.5, 1 - 1 / 8.5])
    assert row["type_ASW"] == pytest.approx((expected + 1) / 2)
    assert np.isnan(row["batch_ASW"])  # a batch of one cell in each type has no width
    assert row["connectivity"] == 1
    assert row["iLISI"] == 0  # the one neighbour is of one batch


def test_widths_are_those_of_scib_metrics():
    """Values of scib-metrics 0.6.1, ``silhouette_label`` and ``silhouette_batch``."""
    rng = np.random.default_rng(0)
    kind, batch = np.repeat([0, 1, 2], 100), np.tile([0, 1], 150)
    z = rng.normal(0, 1, (300, 4)) + 2.0 * np.eye(4)[kind] + 0.8 * np.eye(4)[3] * batch[:, None]
    row = score_integration({"z": z.round(3)}, batch, kind, num_neighbors=30).loc["z"]
    assert row["type_ASW"] == pytest.approx(0.6205552, abs=1e-6)
    assert row["batch_ASW"] == pytest.approx(0.9135125, abs=1e-6)


def test_cells_without_type_take_no_part_and_many_are_thinned_out(tissue):
    kind, batch, noise = tissue
    names = np.where(np.arange(400) < 10, None, np.array(["a", "b"], dtype=object)[kind])
    table = score_integration({"z": noise}, batch, names, max_cells=100)
    assert table.loc["z", "num_cells"] == 100
    table = score_integration({"z": noise}, batch, names)
    assert table.loc["z", "num_cells"] == 390


@pytest.mark.parametrize(
    ("batches", "types", "said"),
    [
        ([0, 0, 0, 0], [0, 0, 1, 1], "two batches, got 1"),
        ([0, 1, 0, 1], [0, 0, 0, 0], "two types, got 1"),
        ([0, 1, 0], [0, 0, 1, 1], "3 for 4 cells"),
    ],
)
def test_one_batch_or_type_is_no_question(batches, types, said):
    with pytest.raises(ValueError, match=said):
        score_integration({"z": np.eye(4)}, batches, types)


def test_what_is_no_number_of_neighbours_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        score_integration({"z": np.eye(4)}, [0, 1] * 2, [0, 0, 1, 1], num_neighbors=0)
