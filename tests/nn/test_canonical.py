"""Canonical correlations that a contrast starts from."""

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import CCA
from torch.testing import assert_close

from spatiagraph._config import from_config, to_config
from spatiagraph.nn import CanonicalStart, StatisticsEncoder, canonical_maps, color_texture


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_views(n=300):
    """Two views that share two directions of a latent variable."""
    latent = random(n, 2)
    x = latent @ random(2, 5, seed=1) + 0.1 * random(n, 5, seed=2)
    y = latent @ random(2, 4, seed=3) + 0.1 * random(n, 4, seed=4)
    return x - x.mean(0), y - y.mean(0)


def test_without_ridge_correlations_are_those_of_scikit_learn():
    x, y = two_views()
    maps = canonical_maps(x, y, 2, ridge=(0.0, 0.0))
    a, b = CCA(2, max_iter=5000, tol=1e-12).fit_transform(x.numpy(), y.numpy())
    for k in range(2):
        own = torch.corrcoef(torch.stack([x @ maps.a[:, k], y @ maps.b[:, k]]))[0, 1]
        assert_close(own.item(), np.corrcoef(a[:, k], b[:, k])[0, 1], atol=1e-4, rtol=0)
        assert_close(maps.correlation[k], own, atol=1e-6, rtol=0)


def test_ridge_keeps_a_view_of_more_features_than_spots_from_agreeing_by_chance():
    x, y = random(20, 40), random(20, 3, seed=1)
    x, y = x - x.mean(0), y - y.mean(0)
    assert canonical_maps(x, y, 1, ridge=(0.0, 0.0)).correlation[0] > 0.99
    assert canonical_maps(x, y, 1, ridge=(3.0, 3.0)).correlation[0] < 0.6


def test_a_direction_without_variance_has_no_weight():
    x, y = two_views()
    x = torch.cat([x, torch.zeros(len(x), 1).double()], 1)
    maps = canonical_maps(x, y, 2, ridge=(0.0, 0.0))
    assert maps.a.isfinite().all()
    assert_close(maps.a[5], torch.zeros(2).double())


def start_of(n=200):
    x, y = two_views(n)
    start = CanonicalStart(5, 4, 8)
    start.initialize(x + 3, 7 * y - 1)
    return start, (x + 3).float(), (7 * y - 1).float()


@torch.no_grad()
def test_spots_find_their_own_profile_at_the_start_and_networks_say_nothing_yet():
    start, x, y = start_of()
    noise = torch.randn(len(x), 8)
    a, b = (
        torch.nn.functional.normalize(start(v, noise, view), dim=1)
        for v, view in ((x, "image"), (y, "genes"))
    )
    assert_close(start(x, noise, "image"), start(x, 0 * noise, "image"))
    rank = ((a @ b.T) > (a * b).sum(1, keepdim=True)).sum(1)
    assert (rank < 10).float().mean() > 0.6  # 0.05 by chance
    start.image_gate.fill_(1.0)
    assert_close(start(x, noise, "image") - start(x, 0 * noise, "image"), noise)


def test_units_and_offsets_of_features_do_not_matter():
    x, y = two_views()
    a, b = CanonicalStart(5, 4, 8), CanonicalStart(5, 4, 8)
    a.initialize(x, y)
    scaled = x * torch.tensor([1, 10, 0.1, 3, 5]) + 2
    b.initialize(scaled, y)
    zero = torch.zeros(len(x), 8)
    with torch.no_grad():
        first, second = a(x.float(), zero, "image"), b(scaled.float(), zero, "image")
    assert_close(first @ first.T, second @ second.T, atol=1e-3, rtol=1e-3)


def test_the_start_has_the_products_of_the_closed_form_and_all_dimensions_learn():
    x, y = two_views()
    start = CanonicalStart(5, 4, 8)
    start.initialize(x, y)
    std = x.std(0)
    _, _, basis = np.linalg.svd(y.numpy(), full_matrices=False)
    maps = canonical_maps(x / std, y @ torch.from_numpy(basis.T), 8)
    first, second = (x / std @ maps.a).float(), (y @ torch.from_numpy(basis.T) @ maps.b).float()
    learned = random(len(x), 8, seed=7).float()
    a, b = start(x.float(), learned, "image"), start(y.float(), learned, "genes")
    for found, expected in ((a @ b.T, first @ second.T), (a @ a.T, first @ first.T)):
        assert_close(found, expected, atol=1e-5, rtol=1e-4)

    a, b = (torch.nn.functional.normalize(v, dim=1) for v in (a, b))
    torch.nn.functional.cross_entropy(10 * a @ b.T, torch.arange(len(x))).backward()
    for parameter in start.parameters():
        size = parameter.grad.reshape(8, -1).norm(dim=1)
        assert (size > 1e-3 * size.max()).all()
    with torch.no_grad():  # a step that treats no direction better than another
        for parameter in start.parameters():
            parameter -= 0.1 * parameter.grad
    assert torch.linalg.matrix_rank(start(x.float(), learned, "image"), rtol=1e-5) == 8


@torch.no_grad()
def test_what_is_fused_starts_from_both_maps():
    x, y = (v.float() for v in two_views())
    start = CanonicalStart(5, 4, 8, fused=True)
    start.initialize(x, y)
    noise = torch.randn(len(x), 8)
    maps = start(x, 0 * noise, "image") + start(y, 0 * noise, "genes")
    assert_close(start.fuse(x, y, noise), maps)
    start.fused_gate.fill_(2.0)
    assert_close(start.fuse(x, y, noise), maps + 2 * noise)
    config = to_config(start)
    del config["args"]["fused"]  # as models of before
    assert from_config(config).fuse(x, y, noise) is noise


def test_too_few_spots_are_refused():
    start = CanonicalStart(5, 4, 8)
    for image, genes in ((2, 2), (5, 4)):
        with pytest.raises(ValueError, match=f"at least 3 .* got {image} images"):
            start.initialize(torch.zeros(image, 5), torch.zeros(genes, 4))


def test_statistics_are_those_of_the_crops():
    crops = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert_close(StatisticsEncoder()(crops), color_texture(crops.double()).float())
