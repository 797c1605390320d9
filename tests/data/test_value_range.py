"""Which pixel values become black and white: one choice for all crops of an image."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from spatiagraph.data import SlideImage

RNG = np.random.default_rng(0)


def nuclei(top: int, dtype: type, shape: tuple[int, int] = (300, 400)) -> np.ndarray:
    """Discs of a stain over black, the brightest of value ``top``."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    glow = np.zeros(shape)
    for row, column in RNG.uniform(0, shape, (60, 2)):
        glow = np.maximum(glow, np.exp(-((y - row) ** 2 + (x - column) ** 2) / 40))
    return (glow * top).astype(dtype)


@pytest.mark.parametrize(("top", "dtype"), [(26, np.uint8), (255, np.uint8), (300, np.uint16)])
def test_stains_of_low_range_fill_the_crops(top, dtype):
    pixels = nuclei(top, dtype)
    image = SlideImage([pixels], mpp=0.5)
    row, column = np.unravel_index(pixels.argmax(), pixels.shape)
    crop, _ = image.crops([[column * 0.5 + 0.25, row * 0.5 + 0.25]], 8, 16)
    assert crop.max() > 0.95
    low, high = np.percentile(pixels, [0.1, 99.9])
    assert_allclose(image.value_range, [[low, high]])


def test_each_channel_is_stretched_by_itself():
    image = SlideImage([np.stack([nuclei(26, np.uint8), nuclei(200, np.uint8)], -1)], mpp=0.5)
    assert image.value_range[0, 1] < 30
    assert image.value_range[1, 1] > 150


@pytest.mark.parametrize("shape", [(300, 400, 3), (3, 300, 400)])
def test_pictures_in_colour_keep_their_values(tmp_path, shape):
    import tifffile

    he = RNG.integers(110, 240, shape, dtype=np.uint8)
    axes = "YXS" if shape[-1] == 3 else "CYX"  # some programs keep colours as channels
    photometric = "rgb" if shape[-1] == 3 else "minisblack"
    metadata = {"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "he.ome.tif", he, photometric=photometric, metadata=metadata)
    image = SlideImage.open(tmp_path / "he.ome.tif")
    assert_array_equal(image.value_range, [[0, 255]] * 3)
    dark = SlideImage([np.stack([nuclei(26, np.uint8)] * 3, -1)], mpp=0.5)  # three stains
    assert dark.value_range[:, 1].max() < 30


def test_one_colour_of_a_picture_keeps_its_values(tmp_path):
    from PIL import Image

    Image.fromarray(RNG.integers(110, 140, (60, 80, 3), dtype=np.uint8)).save(tmp_path / "he.png")
    image = SlideImage.open(tmp_path / "he.png", mpp=0.5, channels=[1])
    assert_array_equal(image.value_range, [[0, 255]])


def test_few_bright_pixels_are_not_the_end_of_the_range():
    pixels = np.zeros((400, 400), np.uint16)
    pixels[200, 200:204] = 900
    assert_array_equal(SlideImage([pixels], mpp=0.5).value_range, [[0, 900]])


def test_the_range_is_that_of_a_level_that_still_shows_nuclei():
    fine = nuclei(200, np.uint8, (512, 512))
    levels = [fine]
    for _ in range(6):
        half = levels[-1].astype(float)
        levels.append(half.reshape(len(half) // 2, 2, -1, 2).mean((1, 3)).astype(np.uint8))
    top = SlideImage(levels, mpp=0.5).value_range[0, 1]
    assert levels[-1].max() < 0.4 * top
    assert top > 0.8 * np.percentile(fine, 99.9)


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64, np.float64])
def test_a_channel_that_is_the_same_everywhere_is_black_however_large_its_value(dtype):
    top = 1e30 if dtype is np.float64 else np.iinfo(dtype).max
    image = SlideImage([np.full((50, 50), top, dtype)], mpp=1.0)
    crops, _ = image.crops(np.array([[25.0, 25.0]]), 10.0, 10)
    assert_array_equal(crops, 0)


@pytest.mark.parametrize(
    "pixels", [RNG.uniform(0, 1e300, (50, 50)), 1e9 + RNG.integers(0, 3, (50, 50))]
)
def test_pixels_that_32_bits_cannot_tell_apart_are_refused(pixels):
    with pytest.raises(ValueError, match="pixel values of .* that numbers of 32 bits can tell"):
        SlideImage([pixels], mpp=1.0)


@pytest.mark.parametrize("given", [(0, np.inf), (0, 1e300), (1e9, 1e9 + 1), (np.nan, 1)])
def test_a_given_range_that_is_none_is_refused(given):
    with pytest.raises(ValueError, match="Expected 'value_range'"):
        SlideImage([np.zeros((50, 50))], mpp=1.0, value_range=given)
