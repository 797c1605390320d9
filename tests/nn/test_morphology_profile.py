"""A network that measures."""

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.nn import MorphologyProfile


def crops(num=4, channels=1, height=24, width=24):
    return torch.rand(num, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(16, 16), (17, 40), (64, 64)])
def test_crops_of_any_size_and_channels_become_features(channels, size):
    found = MorphologyProfile(channels)(crops(2, channels, *size))
    assert found.shape == (2, 10)
    assert found.isfinite().all()


def test_features_have_the_mean_and_deviation_of_the_training_cells():
    model = MorphologyProfile(1, 3)
    features = torch.tensor([[1.0, 10.0, 5.0], [3.0, 50.0, 5.0], [float("nan")] * 3])
    model.initialize(features)
    known = torch.tensor([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]])
    assert_close(model.standardize(features)[:2], known)
    assert model.standardize(features)[2].isnan().all()
    with torch.no_grad():
        assert_close(model.standardize(model.measure(crops())), model(crops()))


def test_a_frozen_network_takes_no_gradient_and_passes_it_on():
    """SPATIA fact 36."""
    model, image = MorphologyProfile(1).freeze(), crops().requires_grad_()
    model(image).square().sum().backward()
    assert all(p.grad is None for p in model.parameters())
    assert image.grad is not None
    assert (image.grad != 0).any()


def test_every_parameter_learns_and_a_saved_network_measures_alike(tmp_path):
    model = MorphologyProfile(3, 4, channels=(4, 4, 8, 8), hidden_channels=16)
    model.initialize(torch.rand(5, 4))
    model(crops(8, 3)).square().sum().backward()
    assert all((p.grad != 0).any() for p in model.parameters())
    model.save_pretrained(tmp_path)
    copy = MorphologyProfile.from_pretrained(tmp_path)
    assert_close(copy.measure(crops(2, 3)), model.measure(crops(2, 3)), rtol=0, atol=0)


def test_what_it_cannot_see_is_refused():
    model = MorphologyProfile(1)
    with pytest.raises(ValueError, match=r"\[N, 1, H, W\] .* got \[4, 3, 24, 24\]"):
        model(crops(channels=3))
    with pytest.raises(ValueError, match=r"16 pixels or more, got \[4, 1, 24, 15\]"):
        model(crops(width=15))
    with pytest.raises(ValueError, match=r"\[N, 10\], got \[3, 4\]"):
        model.initialize(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="got 1 of 2"):
        model.initialize(torch.tensor([[1.0] * 10, [float("nan")] * 10]))
