import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from spatiagraph.losses import pyramid_distance, sliced_wasserstein_loss


def features(num=12, channels=5):
    torch.manual_seed(0)
    return torch.randn(2, num, channels, dtype=torch.float64).unbind()


def distance(x, y, **options):
    return sliced_wasserstein_loss(x, y, generator=torch.manual_seed(3), **options)


def test_a_cloud_is_at_no_distance_from_itself_in_any_order():
    """SPATIA fact 36."""
    x, y = features()
    perm = torch.randperm(12)
    assert distance(x, x) == 0
    assert_close(distance(x, x[perm]), torch.zeros((), dtype=torch.float64))
    assert_close(distance(x[perm], y), distance(x, y))
    assert_close(distance(y, x), distance(x, y))
    assert distance(x, y) > 0.1


def test_a_shift_in_one_dimension_is_its_length():
    """SPATIA fact 36."""
    x = features(channels=1)[0]
    assert_close(distance(x, x - 2.5), torch.tensor(2.5, dtype=torch.float64))


def test_one_direction_is_the_distance_of_the_shadows():
    x, y = features()
    direction = torch.randn(5, 1, dtype=torch.float64, generator=torch.manual_seed(3))
    direction = direction / direction.norm()
    known = wasserstein_distance((x @ direction)[:, 0].numpy(), (y @ direction)[:, 0].numpy())
    assert_close(distance(x, y, num_directions=1).item(), known)


def test_a_long_shift_is_seen_from_all_sides():
    x = features(channels=3)[0]
    shift = torch.tensor([0.0, 0.0, 2.0])
    known = torch.tensor(1.0, dtype=torch.float64)  # mean |cos| on a sphere is a half
    assert_close(distance(x, x + shift, num_directions=4000), known, atol=0.03, rtol=0)


def test_groups_are_compared_each_with_its_own():
    """SPATIA fact 36."""
    x, y = features()
    group = torch.tensor([7, 2, 7, 7, 2, 7, 2, 7, 4, 7, 2, 7])
    parts = {g: distance(x[group == g], y[group == g]) for g in (2, 4, 7)}
    assert_close(distance(x, y, group=group), (4 * parts[2] + parts[4] + 7 * parts[7]) / 12)
    large = distance(x, y, group=group, min_size=2)
    assert_close(large, (4 * parts[2] + 7 * parts[7]) / 11)
    assert distance(x, y, min_size=13) == 0


def test_gradient_reaches_the_generator_and_not_the_frozen_features():
    """SPATIA fact 36."""
    torch.manual_seed(0)
    image = torch.randn(9, 4, requires_grad=True)
    frozen = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).requires_grad_(False)
    distance(frozen(image), frozen(torch.randn(9, 4))).backward()
    assert (image.grad != 0).any(1).all()
    assert all(parameter.grad is None for parameter in frozen.parameters())


def test_gradients_agree_with_finite_differences():
    x, y = features(6, 3)
    assert torch.autograd.gradcheck(lambda x: distance(x, y), [x.requires_grad_()])


def test_autocast_does_not_blur_the_distance():
    x, y = (side.float() for side in features())
    with torch.autocast("cpu", torch.bfloat16):
        blurred = distance(x, y)
    assert_close(blurred, distance(x, y), atol=0, rtol=0)


def test_bad_input_is_refused():
    """SPATIA fact 36."""
    x, y = features()
    with pytest.raises(ValueError, match=r"of one width, \[B, D\], got \[12, 5\] and \[12, 4\]"):
        distance(x, y[:, :4])
    with pytest.raises(ValueError, match=r"got \[12, 5\] and \[11, 5\]"):
        distance(x, y[:11])
    with pytest.raises(ValueError, match=r"'group' as \[12\], got \[3\]"):
        distance(x, y, group=torch.zeros(3))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        distance(x, y, num_directions=0)


def crops(num=256, seed=0, detail=1.0):
    """Noise at two scales."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(num, 1, 4, 4, generator=random)
    fine = torch.randn(num, 1, 16, 16, generator=random)
    return F.interpolate(coarse, (16, 16), mode="bilinear") + detail * fine


def apart(x, y, **options):
    return float(pyramid_distance(x, y, generator=torch.manual_seed(1), **options))


def test_images_are_near_those_of_their_kind_and_far_from_blurred_ones():
    real = crops()
    same, perm = crops(seed=1), torch.randperm(256)
    assert apart(real, real[perm]) < 1e-6
    assert apart(same, real) < 0.1
    smooth = F.avg_pool2d(same, 3, 1, 1)
    contracted = 0.5 * same + 0.5 * same.mean(0)
    assert min(apart(x, real) for x in (smooth, contracted, same + 1)) > 3 * apart(same, real)


def test_each_scale_counts_in_its_own_units():
    """Faint detail that is lost costs no less than strong detail."""
    lost = []
    for detail in (0.02, 1.0):
        real = crops(detail=detail)
        lost.append(apart(F.avg_pool2d(real, 3, 1, 1), real))
    assert lost[0] > 0.2 * lost[1]


def test_images_are_compared_with_those_of_their_group():
    x, y = crops(), crops(seed=1)
    group = torch.arange(256) % 2
    shift = 3.0 * group.view(-1, 1, 1, 1)
    assert apart(x + shift, y + shift, group=group) < 0.1
    assert apart(x + shift, y + shift.flip(0), group=group) > 0.5  # one cloud, other groups
    assert apart(x, y + 5, group=group, min_size=129) == 0


def test_other_shapes_than_images_are_refused():
    with pytest.raises(ValueError, match=r"\[B, C, H, W\], got \[4, 3\]"):
        pyramid_distance(torch.zeros(4, 3), torch.zeros(4, 3))
