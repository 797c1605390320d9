"""Maps of images between Gaussians, against POT and by hand."""

import ot
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.nn import GaussianMap


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def test_images_stay_as_they_are_until_images_were_seen():
    x = normal(3, 2, 8, 8)
    assert_close(GaussianMap((2, 8, 8), 2)(x, torch.tensor([0, 1, 1])), x)


def test_the_map_is_that_of_pot():
    """Three channels of a pixel, so that mirror images are the same images."""
    mix = normal(3, 3, seed=1)
    source, target = normal(400, 3) @ mix + 1, normal(400, 3, seed=2) * torch.tensor([3, 1, 0.3])
    model = GaussianMap((3, 1, 1), 1)
    model.initialize(source[..., None, None], target[..., None, None], torch.zeros(400).long())
    covariances = [torch.cov(x.T, correction=0).double().numpy() for x in (source, target)]
    means = [x.mean(0, keepdim=True).double().numpy() for x in (source, target)]
    matrix, shift = ot.gaussian.bures_wasserstein_mapping(*means, *covariances)
    expected = source.double() @ torch.from_numpy(matrix) + torch.from_numpy(shift)
    found = model(source[..., None, None], torch.zeros(400).long()).flatten(1)
    assert_close(found, expected.float(), rtol=1e-3, atol=1e-3)


def test_each_group_has_a_map_of_its_own():
    group = torch.arange(600) % 2
    source, target = normal(600, 1, 4, 4), 0.5 * normal(600, 1, 4, 4, seed=1) + 2
    target[group == 1] = -3 + 2 * target[group == 1]
    model = GaussianMap((1, 4, 4), 2)
    model.initialize(source, target, group)
    made = model(source, group)
    for g in (0, 1):
        assert_close(made[group == g].mean(), target[group == g].mean(), rtol=0, atol=0.02)
        assert_close(made[group == g].std(), target[group == g].std(), rtol=0.1, atol=0)
    swapped = model(source, 1 - group)
    assert_close(swapped[group == 0].mean(), target[group == 1].mean(), rtol=0, atol=0.05)


def test_a_group_of_too_few_images_keeps_what_it_is_given():
    model = GaussianMap((1, 4, 4), 3)
    group = torch.tensor([0] * 30 + [1])
    model.initialize(normal(31, 1, 4, 4), normal(31, 1, 4, 4, seed=1) + 5, group)
    x = normal(2, 1, 4, 4, seed=2)
    assert_close(model(x, torch.tensor([1, 2])), x)
    assert model(x, torch.tensor([0, 0])).mean() > 4


def test_mirror_images_become_mirror_images():
    model = GaussianMap((1, 8, 8), 1, num_components=64)
    gray = torch.linspace(0, 1, 8)
    model.initialize(
        normal(200, 1, 8, 8), normal(200, 1, 8, 8, seed=1) * gray, torch.zeros(200).long()
    )
    x, group = normal(3, 1, 8, 8, seed=2), torch.zeros(3).long()
    assert_close(model(x.flip(3), group), model(x, group).flip(3), rtol=1e-3, atol=1e-3)


def test_large_images_keep_their_detail():
    """What a map at a small side changes is smooth."""
    bright = torch.rand(60, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    source = bright + 0.01 * normal(60, 1, 16, 16)
    model = GaussianMap((1, 16, 16), 1, num_components=2, side_px=4)
    model.initialize(source, source + 1, torch.zeros(60).long())
    made = model(source, torch.zeros(60).long())
    assert_close(made - source, torch.ones_like(source), rtol=0, atol=0.02)


def test_images_that_do_not_vary_move_by_their_mean():
    model, group = GaussianMap((1, 4, 4), 1), torch.zeros(20).long()
    model.initialize(torch.zeros(20, 1, 4, 4), normal(20, 1, 4, 4) + 1, group)
    made = model(torch.zeros(2, 1, 4, 4), group[:2])
    assert made.isfinite().all()
    assert_close(made.mean(), torch.tensor(1.0), rtol=0, atol=0.2)


def test_maps_are_saved_with_a_state_dict():
    model, again = GaussianMap((1, 4, 4), 1), GaussianMap((1, 4, 4), 1)
    model.initialize(normal(9, 1, 4, 4), normal(9, 1, 4, 4, seed=1) + 1, torch.zeros(9).long())
    again.load_state_dict(model.state_dict())
    x, group = normal(2, 1, 4, 4), torch.zeros(2).long()
    assert_close(again(x, group), model(x, group), rtol=0, atol=0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="of at least 1, got 0, 16 and 32"):
        GaussianMap((1, 4, 4), 0)
    model, group = GaussianMap((1, 4, 4), 1), torch.zeros(2).long()
    with pytest.raises(ValueError, match=r"Expected images \[1, 4, 4\], got \[1, 8, 8\]"):
        model(normal(2, 1, 8, 8), group)
    with pytest.raises(ValueError, match=r"Expected images \[1, 4, 4\], got \[1, 8, 8\]"):
        model.initialize(normal(2, 1, 8, 8), normal(2, 1, 8, 8), group)
    with pytest.raises(ValueError, match="a group for each"):
        model.initialize(normal(2, 1, 4, 4), normal(3, 1, 4, 4), group)
