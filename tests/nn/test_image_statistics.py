"""Statistics of crops, and the linear map of them that starts from principal components."""

import pytest
import torch
from torch.testing import assert_close

from spatiagraph.nn import ImageStatistics, color_texture


def crops(num=12, channels=3):
    return torch.rand(num, channels, 32, 32, generator=torch.Generator().manual_seed(0))


def test_means_deviations_and_quantiles_are_those_of_the_pixels():
    image = crops()
    found = color_texture(image)
    flat = image.flatten(2)
    assert found.shape == (12, 39)
    assert_close(found[:, :3], flat.mean(2))
    assert_close(found[:, 3:6], flat.std(2, correction=0))
    assert_close(found[:, 9:12], flat.quantile(0.5, 2))
    assert_close(color_texture(torch.full((1, 3, 32, 32), 0.5))[0, 27:], torch.zeros(12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_are_those_of_torch_with_and_without_gradient(dtype):
    image = crops().to(dtype)
    flat, steep = image.flatten(2), image.mean(1)
    steep = torch.hypot(steep.diff(dim=2)[:, :-1], steep.diff(dim=1)[:, :, :-1]).flatten(1)
    for given in (image, image.clone().requires_grad_()):
        found = color_texture(given)
        for at, share in ((6, 0.1), (9, 0.5), (12, 0.9)):
            assert_close(found[:, at : at + 3], flat.quantile(share, 2))
        assert_close(found[:, 29], steep.quantile(0.9, 1))
    weight = torch.arange(9.0, dtype=dtype)
    (gradient,) = torch.autograd.grad((found[:, 6:15] * weight).sum(), given)
    (wanted,) = torch.autograd.grad(
        (
            torch.cat([given.flatten(2).quantile(share, 2) for share in (0.1, 0.5, 0.9)], 1)
            * weight
        ).sum(),
        given,
    )
    assert_close(gradient, wanted, rtol=1e-3, atol=1e-3)


def test_a_grey_crop_is_one_of_three_equal_colours():
    grey = crops(channels=1)
    assert_close(color_texture(grey), color_texture(grey.expand(-1, 3, -1, -1)))


def test_it_starts_as_principal_components():
    image = crops(60)
    layer = ImageStatistics(8)
    layer.initialize(image)
    z = layer(image)
    covariance = torch.cov(z.T)
    assert_close(covariance, torch.diag(covariance.diagonal()), rtol=1e-3, atol=1e-3)
    assert (covariance.diagonal().diff() <= 1e-4).all()
    assert_close(z.mean(0), torch.zeros(8), rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="at least 2 crops"):
        layer.initialize(image[:1])


def test_a_statistic_that_never_varied_has_no_unit():
    """Stains glow on black: the 10 % quantile is 0 in the crops of the sample, not in others."""
    dark = crops(60, channels=1)
    dark[:, :, :16] = 0
    layer = ImageStatistics(39)
    layer.initialize(dark)
    z = layer(crops(12, channels=1))
    assert z.abs().max() < 1e4  # deviations; they were millions


def test_small_crops_are_refused():
    with pytest.raises(ValueError, match=r"sides of 32 pixels or more, got \[31, 40\]"):
        color_texture(torch.rand(1, 3, 31, 40))


def test_statistics_are_as_precise_under_autocast():
    crops = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = color_texture(crops)
        assert color_texture(crops.bfloat16()).dtype == torch.float32
    assert torch.equal(found, color_texture(crops))
