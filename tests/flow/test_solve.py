import importlib.util
import math

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.flow import guided, integrate, uniform_grid

ONE = torch.ones(1, dtype=torch.float64)


def growth(x, t):
    return x


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun"])
def test_one_step_of_the_exact_velocity_reaches_the_target(method):
    """SPATIA fact 32."""
    torch.manual_seed(0)
    x0, x1 = torch.randn(2, 3, 4, 4)
    end = integrate(lambda x, t: x1 - x0, x0, method=method, num_steps=1).x
    assert_close(end, x1)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
@pytest.mark.parametrize("field", [growth, lambda x, t: 2 * t * x])
def test_halving_the_step_divides_the_error_by_its_order(method, order, field):
    """SPATIA fact 32."""
    coarse, fine = (
        abs(integrate(field, ONE, method=method, num_steps=n).x.item() - math.e) for n in (64, 128)
    )
    assert coarse / fine == pytest.approx(2**order, rel=0.05)


def test_one_step_by_hand():
    def end(method):
        return integrate(growth, ONE, method=method, num_steps=1).x.item()

    assert end("euler") == 2
    assert end("midpoint") == 2.5  # 1 + (1 + 1/2)
    assert end("heun") == 2.5  # 1 + (1 + 2) / 2


@pytest.mark.parametrize(("method", "calls"), [("euler", 100), ("midpoint", 200), ("heun", 200)])
def test_hundred_steps_cost_as_many_evaluations_as_told(method, calls):
    """SPATIA fact 33."""
    times = []

    def field(x, t):
        times.append(t)
        return x

    solution = integrate(field, torch.ones(3, 1), method=method, num_steps=100)
    assert solution.num_evaluations == len(times) == calls
    assert all(t.shape == (3,) and t.dtype == torch.float32 for t in times)


@pytest.mark.parametrize(("scale", "passes"), [(0.0, 200), (0.2, 400), (-1.0, 200)])
def test_guidance_passes_twice_unless_one_side_has_no_weight(scale, passes):
    """SPATIA fact 33."""
    calls = []

    def velocity(x, t, condition):
        calls.append(condition)
        return x * 0 if condition is None else x * condition

    solution = integrate(guided(velocity, scale), ONE, 1.5, num_steps=100)
    assert solution.num_evaluations == 200
    assert len(calls) == passes
    assert solution.x.item() == pytest.approx(math.exp(1.5 * (1 + scale)), rel=1e-3)


def test_guidance_without_strength_is_the_condition_and_of_minus_one_its_absence():
    """SPATIA fact 33."""
    torch.manual_seed(0)
    x, z = torch.randn(2, 5)

    def velocity(x, t, condition):
        return x.sin() if condition is None else x.cos() * condition

    def free(x, t):
        return velocity(x, t, None)

    def conditional(x, t):
        return velocity(x, t, z)

    for scale, plain in ((0.0, conditional), (-1.0, free)):
        end = integrate(guided(velocity, scale), x, z).x
        assert_close(end, integrate(plain, x).x, atol=0, rtol=0)
    mixed = guided(velocity, 0.2)(x, ONE, z)
    assert_close(mixed, 1.2 * x.cos() * z - 0.2 * x.sin())


@pytest.mark.parametrize("times", [uniform_grid(5), torch.tensor([0.0, 0.9, 1.0])])
def test_path_passes_through_the_given_times(times):
    solution = integrate(
        lambda x, t: torch.ones_like(x), torch.zeros(2, 3), times=times, keep_path=True
    )
    assert_close(solution.times, times)
    assert_close(solution.path, times.float().view(-1, 1, 1).expand(-1, 2, 3))
    assert_close(solution.x, solution.path[-1], atol=0, rtol=0)
    assert integrate(growth, ONE).path is None


def test_gradient_flows_through_all_steps():
    x = ONE.clone().requires_grad_()
    integrate(growth, x, num_steps=200).x.backward()
    assert x.grad.item() == pytest.approx(math.e, rel=1e-4)


def test_progress_is_told_step_by_step():
    seen = []
    integrate(growth, ONE, num_steps=3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_adaptive_steps_need_torchdiffeq_and_say_so():
    if importlib.util.find_spec("torchdiffeq") is None:
        with pytest.raises(ImportError, match=r"pip install 'spatiagraph\[ode\]'"):
            integrate(growth, ONE, method="dopri5")
        return
    solution = integrate(growth, ONE, method="dopri5", rtol=1e-9, atol=1e-9)
    assert solution.x.item() == pytest.approx(math.e, abs=1e-7)
    assert solution.num_evaluations > 6


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="euler, midpoint, heun, dopri5; got 'rk9'"):
        integrate(growth, ONE, method="rk9")
    for times in ([0.0], [0.0, 0.5, 0.5], [1.0, 0.0]):
        with pytest.raises(ValueError, match="at least two increasing 'times'"):
            integrate(growth, ONE, times=torch.tensor(times))
