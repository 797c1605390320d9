import os
import subprocess
import sys

import numpy as np
import ot
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.flow import couple, couple_many, pair_cost, row_confidence, transport_plan
from spatiagraph.flow.coupling import cost_scale

RULES = ["argmax", "sample", "assignment", "barycentric"]


def clouds(num=20, other=30, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num, channels, generator=generator, dtype=torch.float64)
    return x, torch.randn(other, channels, generator=generator, dtype=torch.float64) + 0.5


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_plan_of_two_by_three_points():
    """SPATIA fact 24."""
    plan = transport_plan(torch.tensor([[0.0, 1.0, 4.0], [2.0, 0.5, 1.0]]), epsilon=0.5)
    known = [[0.33110, 0.16667, 0.00223], [0.00223, 0.16667, 0.33110]]
    assert_close(plan, torch.tensor(known, dtype=torch.float64), atol=5e-6, rtol=0)
    confidence = torch.full((2,), 0.66220, dtype=torch.float64)
    assert_close(row_confidence(plan), confidence, atol=1e-5, rtol=0)


@pytest.mark.parametrize("epsilon", [0.02, 0.05, 5.0])
def test_plan_moves_all_mass_and_no_more(epsilon):
    """SPATIA fact 24."""
    x, y = clouds()
    plan = transport_plan(pair_cost(x, y), epsilon=epsilon, max_iter=20000)
    assert plan.dtype == torch.float64
    assert (plan >= 0).all()
    assert (plan.sum(1) - 1 / 20).abs().max() < 1e-6
    assert (plan.sum(0) - 1 / 30).abs().max() < 1e-6
    assert abs(plan.sum() - 1) < 1e-6
    assert (plan.amax(1) <= 1 / 20 + 1e-6).all()


def test_plan_is_that_of_pot_on_logarithms():
    cost = pair_cost(*clouds())
    reference = ot.sinkhorn([], [], cost.numpy(), 0.05, method="sinkhorn_log", stopThr=1e-12)
    assert_close(transport_plan(cost, tol=1e-10).numpy(), reference, atol=1e-9, rtol=0)


def test_costs_too_wide_for_exponentials_are_solved_on_logarithms():
    cost = torch.tensor([[0.0, 3000.0], [3000.0, 0.0]]) + torch.tensor([[0.0], [9000.0]])
    plan = transport_plan(cost, epsilon=1.0)
    assert_close(plan, torch.eye(2, dtype=torch.float64) / 2)


def test_unbalanced_plan_is_that_of_pot():
    cost = pair_cost(*clouds())
    plan = transport_plan(cost, epsilon=0.2, mass_penalty=0.5, tol=1e-10)
    a, b = np.full(20, 1 / 20), np.full(30, 1 / 30)
    reference = ot.unbalanced.sinkhorn_unbalanced(
        a, b, cost.numpy(), 0.2, 0.5, reg_type="kl", stopThr=1e-12
    )
    assert_close(plan.numpy(), reference, atol=1e-9, rtol=0)


def test_a_point_far_from_all_others_sends_little_if_it_may():
    x, y = clouds()
    x[3] += 100
    plain, free = couple(x, y, max_iter=20000), couple(x, y, mass_penalty=0.5)
    assert_close(plain.mass, torch.ones(20, dtype=torch.float64), atol=1e-4, rtol=0)
    assert free.mass[3] < 1e-3 < 0.2 < free.mass.median()


@pytest.mark.parametrize("match", RULES)
def test_equal_clouds_find_themselves(match):
    """SPATIA fact 25."""
    x, _ = clouds(num=40)
    order = torch.randperm(40, generator=seeded())
    found = couple(x, x[order], epsilon=0.002, match=match, generator=seeded())
    assert_close(order[found.target], torch.arange(40))
    assert (found.confidence > 0.999).all()


def test_much_blur_sends_everything_everywhere():
    """SPATIA fact 25."""
    x, y = clouds()
    plan = transport_plan(pair_cost(x, y), epsilon=1e6)
    assert_close(plan, torch.full_like(plan, 1 / 600), atol=1e-8, rtol=0)
    confidence = couple(x, y, epsilon=1e6).confidence
    assert_close(confidence, torch.full_like(confidence, 1 / 30), atol=1e-6, rtol=0)


@pytest.mark.parametrize("match", RULES)
def test_turning_moving_or_scaling_both_clouds_changes_nothing(match):
    """SPATIA fact 26."""
    x, y = clouds()
    turn = torch.linalg.qr(clouds(3, 3)[0]).Q
    found = couple(x, y, match=match, generator=seeded())
    other = couple(7 * x @ turn + 5, 7 * y @ turn + 5, match=match, generator=seeded())
    assert_close(other.target, found.target)
    assert_close(other.confidence, found.confidence, atol=1e-5, rtol=0)


def test_raw_costs_would_depend_on_the_scale():
    x, y = clouds()
    one, fifth = (transport_plan(pair_cost(s * x, s * y, scaled=False)) for s in (1, 0.2))
    assert (one - fifth).abs().max() > 1e-3


def test_best_partner_is_the_largest_of_its_row():
    x, y = clouds()
    plan, found = transport_plan(pair_cost(x, y)), couple(x, y)
    assert_close(found.target, plan.argmax(1))
    assert_close(found.confidence, row_confidence(plan), atol=1e-6, rtol=0)
    assert found.point is None


def test_drawn_partners_come_as_often_as_the_plan_says():
    x, y = clouds(3, 4)
    share = transport_plan(pair_cost(x, y), epsilon=0.5) * 3
    generator = seeded()
    draws = [couple(x, y, epsilon=0.5, match="sample", generator=generator) for _ in range(400)]
    target = torch.stack([draw.target for draw in draws])
    often = torch.nn.functional.one_hot(target, 4).double().mean(0)
    assert_close(often, share, atol=0.08, rtol=0)  # three standard errors
    assert_close(draws[0].confidence, share.gather(1, target[0][:, None])[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("num", "other"), [(20, 30), (30, 20)])
def test_nobody_is_assigned_twice(num, other):
    found = couple(*clouds(num, other), match="assignment")
    taken = found.target[found.target >= 0]
    assert len(taken) == len(taken.unique()) == 20
    assert ((found.confidence > 0) == (found.target >= 0)).all()


def test_barycentre_is_the_mean_of_the_targets_by_mass():
    x, y = clouds()
    y = y + 1000
    found = couple(x, y, match="barycentric")
    point = transport_plan(pair_cost(x, y)) @ y * 20
    assert_close(found.point, point, atol=2e-3, rtol=0)  # 1e-6 of the mass, at a thousand
    assert_close(found.target, torch.cdist(found.point, y).argmin(1))


@pytest.mark.parametrize("match", RULES)
def test_many_problems_together_are_each_on_its_own(match):
    sizes = [(5, 9), (30, 6), (1, 1), (7, 7), (12, 40), (5, 8)]
    xs, ys = zip(*[clouds(*size, seed=i) for i, size in enumerate(sizes)], strict=True)
    together = couple_many(xs, ys, match=match, generator=seeded(), tol=1e-9, max_iter=20000)
    generator = seeded()
    for x, y, found in zip(xs, ys, together, strict=True):
        alone = couple(x, y, match=match, generator=generator, tol=1e-9, max_iter=20000)
        assert_close(found.target, alone.target)
        assert_close(found.confidence, alone.confidence, atol=1e-7, rtol=0)


@pytest.mark.parametrize("mass_penalty", [None, 0.5])
@pytest.mark.parametrize("match", ["argmax", "sample", "barycentric"])
def test_blocks_give_what_the_whole_gives(match, mass_penalty):
    x, y = clouds()
    rule = {"match": match, "mass_penalty": mass_penalty, "tol": 1e-9}
    whole = couple(x, y, generator=seeded(), **rule)
    parts = couple(x, y, generator=seeded(), max_entries=70, **rule)
    assert_close(parts.target, whole.target)
    for name in ("confidence", "mass", "point"):
        assert_close(getattr(parts, name), getattr(whole, name), atol=1e-6, rtol=0)


def test_large_problems_never_hold_all_costs(monkeypatch):
    held, cdist = [], torch.cdist

    def spy(*args, **kwargs):
        held.append((out := cdist(*args, **kwargs)).numel())
        return out

    x, y = clouds(300, 400)
    monkeypatch.setattr(torch, "cdist", spy)
    couple(x, y, epsilon=0.5, max_entries=2000)
    sample, *blocks = held  # the scale is the median distance of a sample, up to 2,048 a side
    assert sample == 300 * 400
    assert max(blocks) <= 2000


def test_scale_is_the_median_distance_or_what_comes_nearest():
    x = torch.tensor([[0.0], [0.0], [0.0]])
    assert cost_scale(x, torch.tensor([[1.0], [2.0], [9.0]])) == 2
    assert cost_scale(x, torch.tensor([[0.0], [0.0], [9.0]])) == 3  # the mean
    assert cost_scale(x, x) == 1
    many = torch.arange(10000.0)[:, None]
    assert abs(cost_scale(torch.zeros(1, 1), many) / 5000 - 1) < 1e-2


def test_single_precision_is_computed_in_double():
    x, y = (side.float() for side in clouds())
    found = couple(x, y)
    assert found.confidence.dtype == torch.float64
    assert_close(found.confidence, couple(x.double(), y.double()).confidence, atol=0, rtol=0)


def test_no_convergence_is_told():
    x, y = clouds(6, 6, channels=1)
    for settings in ({}, {"max_entries": 9}, {"mass_penalty": 9.0}):
        with pytest.warns(UserWarning, match="2 of 2 transport problems did not converge in 3"):
            couple_many([x, x], [y, y], epsilon=0.001, max_iter=3, **settings)
    with pytest.warns(UserWarning, match="1 of 1"):
        transport_plan(pair_cost(x, y), epsilon=0.001, max_iter=3)


def test_bad_input_is_refused():
    x, y = clouds()
    with pytest.raises(ValueError, match=r"got \[20, 3\] and \[30, 2\] in problem 0"):
        couple(x, y[:, :2])
    with pytest.raises(ValueError, match=r"got \[0, 3\] and \[30, 3\] in problem 1"):
        couple_many([x, x[:0]], [y, y])
    with pytest.raises(ValueError, match=r"1 of 30 in 'y' of problem 0 .* \(rows \[4\]\)"):
        couple(x, y.index_fill(0, torch.tensor([4]), torch.nan))
    with pytest.raises(ValueError, match="argmax, sample, assignment, barycentric, got 'best'"):
        couple(x, y, match="best")
    with pytest.raises(ValueError, match="got 1 and 2"):
        couple_many([x], [y, y])
    with pytest.raises(ValueError, match="'epsilon' to be positive and finite, got 0"):
        couple(x, y, epsilon=0)
    with pytest.raises(ValueError, match="'mass_penalty' to be positive and finite, got -1"):
        couple(x, y, mass_penalty=-1.0)
    with pytest.raises(ValueError, match="'max_iter' of at least 1, got 0"):
        couple(x, y, max_iter=0)
    with pytest.raises(ValueError, match="at most 50 pairs to assign one to one, got 20 × 30"):
        couple(x, y, match="assignment", max_entries=50)
    with pytest.raises(ValueError, match=r"N, M > 0, got \[0, 3\]"):
        transport_plan(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="got 1 that is not"):
        transport_plan(torch.tensor([[1.0, torch.inf]]))


def test_no_problems_have_no_couplings():
    assert couple_many([], []) == []


def test_other_frameworks_are_not_started(tmp_path):
    """JAX takes most of a GPU as soon as it is imported, and POT imports all it finds."""
    started = tmp_path / "started"
    for name in ("jax", "tensorflow", "cupy"):
        (tmp_path / f"{name}.py").write_text(f"open({str(started)!r}, 'w')\nraise ImportError")
    code = "import torch; from spatiagraph.flow import transport_plan as p; p(torch.rand(3, 3))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": path})
    assert not started.exists()
