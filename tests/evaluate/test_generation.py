"""Generated cells against real ones."""

import numpy as np
import pytest

from spatiagraph.evaluate import frechet_distance, kernel_distance, score_morphology


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    shifts = {"a": [2.0, 0.0, 0.5, 1.0], "b": [0.0, 1.0, -2.0, 0.3]}
    control = {name: rng.normal(size=(300, 4)) for name in shifts}
    target = {name: rng.normal(size=(200, 4)) + shift for name, shift in shifts.items()}
    return control, target


def test_a_perfect_generator_has_one_and_the_identity_is_reported(cells):
    """SPATIA fact 41."""
    control, target = cells
    table = score_morphology(control, target, target)
    perfect = table.loc["generated"]
    assert perfect["wasserstein_correlation"].to_numpy() == pytest.approx(1.0)
    assert perfect["ks"].to_numpy() == pytest.approx(1.0)
    identity, bound = table.loc[("identity", "all")], table.loc[("random_target", "all")]
    assert identity["ks"] < bound["ks"] < 1
    assert bound["wasserstein_correlation"] > 0.95
    assert np.isnan(identity["wasserstein_correlation"])  # it moves nothing
    assert table.loc[("generated", "all"), "num_images"] == 400


def test_a_generator_of_the_wrong_transition_is_told(cells):
    control, target = cells
    swapped = {"a": target["b"], "b": target["a"]}
    table = score_morphology(control, swapped, target)
    assert table.loc[("generated", "all"), "wasserstein_correlation"] < 0.5
    assert table.loc[("generated", "all"), "ks"] < table.loc[("random_target", "all"), "ks"] - 0.1


def test_invalid_features_are_left_out(cells):
    control, target = cells
    broken = {name: x.copy() for name, x in target.items()}
    broken["a"][:50, 0] = np.nan
    table = score_morphology(control, broken, target)
    assert table.loc[("generated", "all"), "ks"] > 0.97


def test_distances_of_a_cloud_to_itself_and_to_a_shifted_one():
    """SPATIA fact 41: FID(X, X) is 0."""
    x = np.random.default_rng(0).normal(size=(2500, 3))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x + [3.0, 4.0, 0.0], x) == pytest.approx(25, rel=1e-6)
    assert frechet_distance(2 * x, x) == pytest.approx(np.trace(np.cov(x.T)), rel=0.01)
    same, _ = kernel_distance(x[:1000], x[1000:2000])
    apart, _ = kernel_distance(x[:1000] + 1, x[1000:2000])
    assert abs(same) < 0.05 * apart


def test_what_does_not_fit_is_refused(cells):
    control, target = cells
    x = np.zeros((10, 3))
    with pytest.raises(ValueError, match="2000 images or more on each side, got 10"):
        frechet_distance(x, x)
    with pytest.raises(ValueError, match="the same features, got 3 and 2"):
        kernel_distance(x, x[:, :2])
    with pytest.raises(ValueError, match="the same transitions"):
        score_morphology(control, {"a": target["a"]}, target)
    with pytest.raises(ValueError, match=r"features \[N, F\]"):
        score_morphology(control, {k: v[:, :2] for k, v in target.items()}, target)
