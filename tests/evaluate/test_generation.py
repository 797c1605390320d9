"""Generated cells against real ones."""

import numpy as np
import pandas as pd
import pytest
import torch

from spatiagraph.evaluate import (
    frechet_distance,
    kernel_distance,
    score_generation,
    score_morphology,
)


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    shifts = {"a": [2.0, 0.0, 0.5, 1.0], "b": [0.0, 1.0, -2.0, 0.3]}
    control = {name: rng.normal(size=(300, 4)) for name in shifts}
    target = {name: rng.normal(size=(200, 4)) + shift for name, shift in shifts.items()}
    return control, target


def test_kernel_distance_leaves_out_each_image_with_itself():
    """By hand, of two images on each side: all pairs of different ones, cubed."""
    x, y = np.array([[1.0], [2.0]]), np.array([[0.0], [3.0]])
    within = (1 * 2 + 1) ** 3 + (0 * 3 + 1) ** 3
    between = np.mean([(a * b + 1) ** 3 for a in (1, 2) for b in (0, 3)])
    assert kernel_distance(x, y)[0] == pytest.approx(within - 2 * between)


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


def nuclei(radius, seed=0):
    """Discs of about these radii in pixels, of many stains, ``[N, 1, 24, 24]``."""
    rng = np.random.default_rng(seed)
    num = len(radius)
    y, x = np.mgrid[:24, :24] - 11.5
    size = (radius * rng.uniform(0.9, 1.1, num))[:, None, None]
    stain = rng.uniform(0.5, 0.8, (num, 1, 1))
    inside = np.clip(size - np.hypot(x, y) + 0.5, 0, 1) * stain
    return np.clip(inside + rng.normal(0.1, 0.02, inside.shape), 0, 1)[:, None]


@pytest.fixture(scope="module")
def changes():
    """Control and target images of cells that grow or shrink, and which do."""
    tags = np.repeat(["grow", "shrink"], 40)
    before, after = np.where(tags == "grow", 5.0, 9.0), np.where(tags == "grow", 9.0, 5.0)
    return nuclei(before), nuclei(after, 1), tags


def test_the_targets_themselves_are_a_perfect_generation(changes):
    """SPATIA fact 41."""
    control, target, tags = changes
    table = score_generation(target, target, control, tags, mpp=0.5)
    perfect, same = table.loc["generated"], table.loc["identity"]
    assert perfect["wasserstein_correlation"].to_numpy() == pytest.approx(1)
    assert perfect["ks"].to_numpy() == pytest.approx(1)
    random = table.loc["random_target"]
    kernel = "kernel_morphology"
    for name in ("grow", "shrink"):
        assert abs(perfect.loc[name, kernel]) < 0.1 * same.loc[name, kernel]
    assert (same["ks"] < random["ks"] - 0.2).all()
    assert (random["ks"] < 1).all()
    names = ["grow", "shrink"]
    assert (random.loc[names, "kernel_morphology"] < same.loc[names, "kernel_morphology"]).all()
    assert perfect["num_images"].tolist() == perfect["num_valid"].tolist() == [80, 40, 40]
    assert table["frechet_morphology"].isna().all()  # far too few images


def test_a_target_of_many_controls_lies_in_one_half_of_the_floor():
    """Two targets of twenty controls each: halves are a cell each, not the same cells twice."""
    tags = np.repeat("grow", 40)
    target = nuclei(np.array([7.0, 11.0]), 1)[np.arange(40) % 2]
    control = nuclei(np.full(40, 5.0))
    cell = [f"cell{row % 2}" for row in range(40)]
    wanted = {"extractors": {"grey": lambda x: x.mean((2, 3))}, "mpp": 0.5}
    table = score_generation(target, target, control, tags, target_id=cell, **wanted)
    floor = table.loc[("random_target", "grow")]
    assert floor[["num_images", "num_targets"]].tolist() == [1, 1]
    assert floor["ks"] < 0.2  # two cells of other sizes
    made = table.loc[("generated", "grow"), ["num_images", "num_targets"]]
    assert made.tolist() == [40, 2]
    pd.testing.assert_frame_equal(  # equal images are one cell where no id says otherwise
        table, score_generation(target, target, control, tags, **wanted)
    )
    own = score_generation(target, target, control, tags, target_id=range(40), **wanted)
    assert own.loc[("random_target", "grow"), ["num_images", "num_targets"]].tolist() == [20, 20]
    assert own.loc[("random_target", "grow"), "ks"] > 0.5


def test_a_floor_of_all_transitions_holds_each_shared_target_once(changes):
    """Both transitions lead to the same cells; of two clouds of no common cell the kernel is 0."""
    control, target, _ = changes
    both = np.concatenate([target[:40], target[:40]])
    known = {x.astype(np.float32).tobytes(): row for row, x in enumerate(target[:40])}

    def one_hot(images):
        rows = [known.get(image.float().numpy().tobytes(), 40) for image in images]
        return 10.0 * torch.eye(41)[rows]

    table = score_generation(
        both,
        both,
        control,
        np.repeat(["a", "b"], 40),
        mpp=0.5,
        extractors={"which": one_hot},
    )
    floor = table.loc["random_target"]
    assert floor["num_targets"].tolist() == [20, 40, 20]
    assert floor["kernel_which"].to_numpy() == pytest.approx(0, abs=1e-9)


def test_one_target_alone_has_no_floor_and_leaves_that_of_the_others(cells):
    control, target = cells
    one = {"a": target["a"], "b": target["b"][:1].repeat(9, 0)}
    ids = {"a": range(200), "b": ["x"] * 9}
    table = score_morphology(control, one, one, target_id=ids)
    floor = table.loc["random_target"]
    assert np.isnan(floor.loc["b", "ks"])
    assert floor.loc["all", "ks"] == floor.loc["a", "ks"]
    with pytest.raises(
        ValueError, match=r"'target_id' of each target cell, .*'b': 9.* got .*'b': 8"
    ):
        score_morphology(control, one, one, target_id=ids | {"b": ["x"] * 8})


def test_the_gap_to_the_wrong_condition_is_that_of_a_generator_that_listens(changes):
    control, target, tags = changes
    deaf = score_generation(control, target, control, tags, wrong=control, mpp=0.5)
    listens = score_generation(target, target, control, tags, wrong=control, mpp=0.5)
    assert deaf.loc["gap", "ks"].to_numpy() == pytest.approx(0)
    assert deaf.loc["gap", "kernel_morphology"].to_numpy() == pytest.approx(0)
    for name in ("grow", "shrink"):
        gap = listens.loc[("gap", name)]
        assert gap["ks"] > 0.2
        wrong, right = (listens.loc[(who, name)] for who in ("wrong_condition", "generated"))
        assert gap["kernel_morphology"] == wrong["kernel_morphology"] - right["kernel_morphology"]
        assert gap["kernel_morphology"] > 0


def test_what_flows_start_at_is_scored_beside_what_they_make(changes):
    control, target, tags = changes
    table = score_generation(target, target, control, tags, start=control, mpp=0.5)
    assert table.loc["start"].equals(table.loc["identity"])
    table = score_generation(control, target, control, tags, start=target, mpp=0.5)
    assert table.loc["start", "ks"].to_numpy() == pytest.approx(1)


def test_distances_are_taken_of_any_features(changes):
    control, target, tags = changes
    extractors = {"grey": lambda x: x.mean((2, 3)), "morphology": "morphology"}
    table = score_generation(
        target, target, control, tags, mpp=0.5, extractors=extractors, min_frechet=40
    )
    grey = control.mean((1, 2, 3))[:40, None], target.mean((1, 2, 3))[:40, None]
    known = frechet_distance(*grey, min_images=2)
    assert table.loc[("identity", "grow"), "frechet_grey"] == pytest.approx(known, rel=1e-3)
    assert table.loc["generated", "frechet_grey"].to_numpy() == pytest.approx(0, abs=1e-9)
    assert table.loc["generated", "frechet_morphology"].to_numpy() == pytest.approx(0, abs=1e-4)
    assert table.loc[("identity", "grow"), "frechet_morphology"] > 1
    halves = table.loc["random_target", "frechet_grey"]
    assert halves.isna().tolist() == [False, True, True]  # 20 images in half a transition


def test_generated_images_without_a_nucleus_are_counted_as_such(changes):
    control, target, tags = changes
    made = target.copy()
    made[:10] = 0.5
    table = score_generation(made, target, control, tags, mpp=0.5)
    assert table.loc["generated", "num_valid"].tolist() == [70, 30, 40]
    assert table.loc["generated", "num_images"].tolist() == [80, 40, 40]
    nothing = score_generation(made * 0, target, control, tags, mpp=0.5).loc["generated"]
    assert nothing["num_valid"].tolist() == [0, 0, 0]
    assert nothing[["wasserstein_correlation", "ks", "kernel_morphology"]].isna().all(axis=None)


def test_a_transition_that_cannot_be_measured_has_nan_and_leaves_the_others_as_they_are(changes):
    control, target, tags = changes
    blank = target.copy()
    blank[41:] = 0.5  # one target cell of "shrink" is left
    table = score_generation(target, blank, control, tags, wrong=control, mpp=0.5)
    scores = ["wasserstein_correlation", "ks"]
    for who in ("generated", "identity", "random_target", "wrong_condition", "gap"):
        assert table.loc[(who, "shrink"), scores].isna().all()
    assert table.loc[("generated", "shrink"), ["num_images", "num_valid"]].tolist() == [40, 40]
    assert np.isnan(table.loc[("identity", "shrink"), "kernel_morphology"])
    alone = score_generation(target[:40], target[:40], control[:40], tags[:40], mpp=0.5)
    for who in ("generated", "identity"):
        assert table.loc[(who, "grow"), "ks"] == alone.loc[(who, "grow"), "ks"]
        assert table.loc[(who, "all"), "ks"] == alone.loc[(who, "all"), "ks"]


def test_a_distance_of_all_there_is_has_no_deviation():
    x = np.random.default_rng(0).normal(size=(120, 3))
    assert np.isnan(kernel_distance(x[:60], x[60:])[1])
    assert kernel_distance(x[:60], x[60:], subset_size=30)[1] > 0


def test_images_that_do_not_fit_are_refused(changes):
    control, target, tags = changes
    with pytest.raises(ValueError, match=r"images of one shape .* got 80 transitions and .*\[79"):
        score_generation(target[1:], target, control, tags, mpp=0.5)
    with pytest.raises(ValueError, match="got 79 transitions"):
        score_generation(target, target, control, tags[1:], mpp=0.5)
    with pytest.raises(ValueError, match="'target_id' of each of 80 targets, got 79"):
        score_generation(target, target, control, tags, mpp=0.5, target_id=range(79))
    with pytest.raises(
        ValueError, match="a bright nucleus, got .*'grow': {'control': 0, 'target':"
    ):
        score_generation(target, target, control * 0, tags, mpp=0.5)
    with pytest.raises(ValueError, match="other names than 'all', got"):
        score_generation(target, target, control, ["all"] * 80, mpp=0.5)
    with pytest.raises(ValueError, match="the weights of 'resnet18', got None"):
        score_generation(target, target, control, tags, mpp=0.5, extractors=["resnet18"])
    nan = {"nan": lambda x: x.mean((2, 3)) * np.nan}
    with pytest.raises(ValueError, match="finite 'features', got NaN"):
        score_generation(target, target, control, tags, mpp=0.5, extractors=nan)
