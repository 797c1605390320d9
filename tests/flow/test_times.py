import pytest
import torch
from torch.testing import assert_close

from spatiagraph.flow import edm_grid, sample_times, skewed_times, uniform_grid


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


@pytest.mark.parametrize("grid", [uniform_grid, edm_grid])
@pytest.mark.parametrize("num_steps", [1, 2, 25])
def test_grids_rise_from_start_to_target(grid, num_steps):
    times = grid(num_steps)
    assert len(times) == num_steps + 1
    assert times[0] == 0
    assert times[-1] == 1
    assert (times.diff() > 0).all()


def test_steps_of_the_edm_grid_follow_its_noise_levels():
    times = edm_grid(2)
    sigma = ((80 ** (1 / 7) + 0.002 ** (1 / 7)) / 2) ** 7
    assert_close(times[1].item(), 1 / (1 + sigma))
    assert edm_grid(50).diff()[-1] < edm_grid(50).diff().max() / 5


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least one step, got 0"):
        uniform_grid(0)
    with pytest.raises(ValueError, match="got 'late'"):
        sample_times(3, schedule="late")
    with pytest.raises(ValueError, match="got 1.0, 0.5 and 7"):
        edm_grid(3, sigma_max=0.5, sigma_min=1.0)
