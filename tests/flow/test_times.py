import pytest
import torch
from torch.testing import assert_close

from spatiagraph.flow import sample_times, skewed_times, uniform_grid


def test_skewed_times_by_hand():
    """SPATIA fact 35."""
    times = skewed_times(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
    known = torch.tensor([0.916827, 0.768525, 0.5], dtype=torch.float64)
    assert_close(times, known, atol=1e-6, rtol=0)
    assert_close(skewed_times(torch.tensor([-99.0, 99.0])), torch.tensor([1.0, 1e-4]))


def test_times_are_drawn_by_their_schedule():
    def draw(schedule):
        return sample_times(4000, schedule=schedule, generator=torch.manual_seed(0))

    uniform, skewed = draw("uniform"), draw("skewed")
    assert_close(draw("skewed"), skewed, atol=0, rtol=0)
    assert ((uniform >= 0) & (uniform < 1)).all()
    assert abs(uniform.median() - 0.5) < 0.03
    assert abs(skewed.median() - 0.7685) < 0.02


@pytest.mark.parametrize("num_steps", [1, 2, 25])
def test_the_grid_rises_from_start_to_target(num_steps):
    times = uniform_grid(num_steps)
    assert len(times) == num_steps + 1
    assert times[0] == 0
    assert times[-1] == 1
    assert (times.diff() > 0).all()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least one step, got 0"):
        uniform_grid(0)
    with pytest.raises(ValueError, match="got 'late'"):
        sample_times(3, schedule="late")
