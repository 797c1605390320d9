import pytest
import torch
from torch.testing import assert_close

from spatiagraph.flow import LinearPath

TIMES = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)


def ends(num=3):
    torch.manual_seed(0)
    return torch.randn(2, num, 2, 4, 4, dtype=torch.float64).unbind()


def test_path_leads_from_control_to_target_at_constant_speed():
    """SPATIA fact 30."""
    x0, x1 = ends()
    x, velocity = LinearPath().at(x0, x1, TIMES)
    assert_close(x[0], x0[0], atol=0, rtol=0)
    assert_close(x[2], x1[2], atol=0, rtol=0)
    assert_close(x[1], 0.7 * x0[1] + 0.3 * x1[1])
    assert_close(velocity, LinearPath().at(x0, x1, TIMES.flip(0)).velocity, atol=0, rtol=0)
    assert_close(LinearPath().endpoint(x, velocity, TIMES), x1)


def test_velocity_is_the_derivative_of_the_place():
    x0, x1 = ends()
    t, weight = TIMES.clone().requires_grad_(), torch.randn_like(x0)
    x, velocity = LinearPath().at(x0, x1, t)
    (slope,) = torch.autograd.grad((x * weight).sum(), t)
    assert_close(slope, (velocity * weight).sum((1, 2, 3)))


def test_paths_start_at_the_control_at_noise_or_near_the_control():
    control = torch.full((4000, 3), 5.0)
    assert LinearPath().start(control) is control
    generator = torch.Generator().manual_seed(0)
    noise = LinearPath("noise").start(control, generator=generator)
    assert noise.shape == control.shape
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05
    near = LinearPath(noise=0.2).start(control, generator=generator)
    blurred = (near != control).all(1)
    assert_close(near[~blurred], control[~blurred], atol=0, rtol=0)
    assert abs(blurred.float().mean() - 0.5) < 0.03
    assert abs((near - control)[blurred].std() - 0.2) < 0.01


def test_starts_depend_on_the_generator_alone():
    control, path = ends()[0], LinearPath(noise=0.2)
    first, again = (path.start(control, generator=torch.manual_seed(1)) for _ in range(2))
    assert_close(first, again, atol=0, rtol=0)


def test_each_path_may_have_a_source_of_its_own():
    control, path = ends()[0], LinearPath(noise=0.2, noise_probability=1.0)
    sources = [torch.Generator().manual_seed(seed) for seed in (1, 2, 3)]
    alone = path.start(control[1:2], generator=torch.Generator().manual_seed(2))
    assert_close(path.start(control, generator=sources)[1:2], alone, atol=0, rtol=0)
    with pytest.raises(ValueError, match="each of 3 paths, got 2"):
        path.start(control, generator=sources[:2])


def test_half_precision_stays_what_it_is():
    x0, x1 = (end.bfloat16() for end in ends())
    point = LinearPath().at(x0, x1, TIMES)
    assert point.x.dtype == LinearPath().endpoint(*point, TIMES).dtype == torch.bfloat16


def test_bad_input_is_refused():
    x0, x1 = ends()
    with pytest.raises(ValueError, match=r"\[3, 2, 4, 4\], \[2, 2, 4, 4\] and \[3\]"):
        LinearPath().at(x0, x1[:2], TIMES)
    with pytest.raises(ValueError, match=r"and \[2\]"):
        LinearPath().at(x0, x1, TIMES[:2])
    with pytest.raises(ValueError, match="got 'target'"):
        LinearPath("target")
    with pytest.raises(ValueError, match="at least 0, got -1"):
        LinearPath(noise=-1)
    with pytest.raises(ValueError, match="between 0 and 1, got 2"):
        LinearPath(noise_probability=2)
