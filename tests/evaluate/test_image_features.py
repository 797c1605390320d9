import numpy as np
import pytest
import torch

from spatiagraph.data import CropSource, make_tissue
from spatiagraph.evaluate import color_texture, image_baselines, network_features


def crops(num_cells=5, channels=3, size=64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1, (num_cells, channels, size, size)).astype(np.float32)


def test_colours_of_an_even_crop_are_its_colour_and_it_has_no_texture():
    x = np.ones((1, 3, 32, 32)) * np.array([0.2, 0.5, 0.9])[:, None, None]
    f = color_texture(x)[0]
    np.testing.assert_allclose(f[:3], [0.2, 0.5, 0.9], rtol=1e-6)
    np.testing.assert_allclose(f[3:6], 0, atol=1e-7)
    np.testing.assert_allclose(f[6:15].reshape(3, 3), [[0.2, 0.5, 0.9]] * 3, rtol=1e-6)
    np.testing.assert_allclose(f[27:], 0, atol=1e-7)


def test_a_crop_stained_by_haematoxylin_alone_has_that_stain_alone():
    density = 0.8 * np.array([0.65, 0.70, 0.29])
    x = np.ones((1, 3, 32, 32)) * np.exp(-density)[:, None, None]
    np.testing.assert_allclose(color_texture(x)[0, 15:18], [0.8, 0, 0], atol=1e-6)


def test_gradients_are_those_of_a_ramp_at_every_scale():
    x = np.broadcast_to(np.arange(64) / 100, (1, 3, 64, 64))
    f = color_texture(x)[0, 27:].reshape(3, 4)
    np.testing.assert_allclose(f[:, 0], [0.01, 0.04, 0.16], rtol=1e-5)  # mean gradient
    np.testing.assert_allclose(f[:, 1], 0, atol=1e-6)


def test_statistics_know_neither_rotation_by_half_nor_other_crops():
    x = crops(40)
    f = color_texture(x)
    np.testing.assert_allclose(color_texture(x[33:34]), f[33:34], rtol=1e-6)
    turned = color_texture(x[:, :, ::-1, ::-1])
    np.testing.assert_allclose(turned[:, :27], f[:, :27], rtol=1e-5)
    assert np.isfinite(f).all()
    assert f.shape == (40, 39)


def test_one_channel_is_grey():
    x = crops(channels=1)
    np.testing.assert_array_equal(color_texture(x), color_texture(np.repeat(x, 3, axis=1)))


def test_random_features_follow_their_seed_and_leave_the_global_state():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    x = crops(3)
    a, b = network_features(x), network_features(x)
    np.testing.assert_array_equal(a, b)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.abs(network_features(x, seed=1) - a).max() > 1e-3
    assert a.shape == (3, 512)
    table = image_baselines(x)
    assert list(table) == ["color_texture", "resnet18_random"]


def test_crops_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"\[N, C, H, W\], got \[3, 32, 32\]"):
        color_texture(np.zeros((3, 32, 32)))
    with pytest.raises(ValueError, match="sides of 32 pixels or more"):
        color_texture(np.zeros((1, 3, 16, 16)))


class Counted(CropSource):
    """Crops of an image that note how many are read at a time."""

    reads: list[int]

    def read(self, rows=None, *, progress=False):
        self.reads.append(len(self) if rows is None else len(rows))
        return super().read(rows, progress=progress)


def test_crops_that_are_read_in_blocks_have_the_features_of_those_in_memory():
    slide = make_tissue(1100, num_genes=20, image="he", seed=0)
    source = Counted(slide, slide.pos, 20.0, 32)
    whole = slide.image.crops(slide.pos, 20.0, 32)[0]
    source.reads = []
    found = image_baselines(source)
    assert sum(source.reads) == 1100  # both features of one reading
    assert max(source.reads) <= 1024
    np.testing.assert_array_equal(found["color_texture"], color_texture(whole))
    np.testing.assert_array_equal(found["resnet18_random"], network_features(whole))
