import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spatiagraph import plot


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_becomes_a_picture(channels):
    image = np.random.default_rng(0).random((channels, 4, 6), dtype=np.float32)
    rgb = plot.galleries.as_rgb(image)
    assert rgb.shape == (4, 6, 3)
    assert_array_equal(rgb[..., 0], image[0])
    expected = {1: image[0], 2: np.zeros((4, 6))}.get(channels, image[2 % channels])
    assert_array_equal(rgb[..., 2], expected)


def test_missing_crops_are_named_not_drawn_black():
    images = np.zeros((7, 3, 8, 8), np.float32)
    mask = np.arange(7) != 2
    figure = plot.gallery(images, [str(i) for i in range(7)], mask=mask, num_columns=4)
    axes = figure.axes
    assert len(axes) == 8
    assert [len(ax.images) for ax in axes] == [1, 1, 0, 1, 1, 1, 1, 0]
    assert "outside" in axes[2].texts[0].get_text()
    assert axes[3].get_title() == "3"


def test_gallery_refuses_what_does_not_match():
    with pytest.raises(ValueError, match=r"\[N, C, H, W\]"):
        plot.gallery(np.zeros((3, 8, 8)))
    with pytest.raises(ValueError, match="'titles' per image, got 2"):
        plot.gallery(np.zeros((3, 1, 8, 8)), ["a", "b"])
