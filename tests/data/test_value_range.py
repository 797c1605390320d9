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


def in_white_light(
    bits: int, glass: float = 0.9, shape: tuple[int, int] = (300, 400)
) -> np.ndarray:
    """Purple nuclei and pink tissue on glass, as shares of white, and the noise of a camera."""
    nucleus = nuclei(255, np.uint8, shape)[..., None] / 255
    pink, purple = np.array([0.85, 0.55, 0.75]), np.array([0.35, 0.2, 0.5])
    tissue = pink + nucleus * (purple - pink)
    tissue[:, : shape[1] // 4] = glass
    noise = RNG.normal(0, 0.01, tissue.shape)
    return ((tissue + noise).clip(0, 1) * (2**bits - 1)).astype(np.uint16)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("axes", ["YXS", "CYX"])
def test_pictures_in_white_light_keep_their_white(tmp_path, bits, axes):
    import tifffile

    he = in_white_light(bits)
    stored = he if axes == "YXS" else np.moveaxis(he, -1, 0)
    tifffile.imwrite(
        tmp_path / "he.ome.tif",
        stored,
        photometric="rgb" if axes == "YXS" else "minisblack",
        metadata={"axes": axes, "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
    )
    image = SlideImage.open(tmp_path / "he.ome.tif")
    assert_array_equal(image.value_range, [[0, 2**bits - 1]] * 3)
    crop, _ = image.crops([[5.0, 75.0]], 8, 16)
    assert_allclose(crop.mean(axis=(0, 2, 3)), 0.9, atol=0.01)  # glass stays grey


def test_a_picture_of_fractions_or_without_glass_keeps_its_white():
    fractions = in_white_light(16) / 65535
    assert_array_equal(SlideImage([fractions], mpp=0.5).value_range, [[0, 1]] * 3)
    dense = in_white_light(12)[:, 110:]
    assert_array_equal(SlideImage([dense], mpp=0.5).value_range, [[0, 4095]] * 3)
    hot = in_white_light(12)
    hot[0, 0] = 65535  # a pixel of the camera
    assert_array_equal(SlideImage([hot], mpp=0.5).value_range, [[0, 4095]] * 3)


@pytest.mark.parametrize("background", [0, 100, 300])
def test_three_stains_of_16_bits_are_stretched(background):
    stains = np.stack([nuclei(top, np.uint16) for top in (700, 900, 1000)], -1) + background
    image = SlideImage([stains.astype(np.uint16)], mpp=0.5)
    low, high = np.percentile(stains, [0.1, 99.9], axis=(0, 1))
    assert_allclose(image.value_range, np.stack([low, high], 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_few_nuclei_on_black_are_something(dtype):
    pixels = np.zeros((600, 600, 2), dtype)
    pixels[..., 0] = nuclei(200, np.uint8, (600, 600))
    pixels[300:304, 300:304, 1] = 200
    image = SlideImage([pixels], mpp=0.5)
    assert image.dark_channels() == []
    assert_array_equal(image.value_range[1], [0, 200])
    pixels[..., 1] = 0
    assert SlideImage([pixels], mpp=0.5).dark_channels() == ["channel 1 holds 0 alone"]


def test_few_nuclei_stand_out_of_the_noise_of_a_camera():
    pixels = RNG.integers(0, 3, (600, 600)).astype(np.uint16)
    assert SlideImage([pixels], mpp=0.5).dark_channels() == ["channel 0 holds 0 to 2"]
    pixels[300:304, 300:304] = 900
    image = SlideImage([pixels], mpp=0.5)
    assert image.dark_channels() == []
    assert_array_equal(image.value_range, [[0, 900]])


def test_few_nuclei_of_a_large_image_are_seen_wherever_they_lie():
    pixels = np.zeros((6000, 4000), np.uint8)  # more than are looked at
    assert SlideImage([pixels], mpp=0.5).dark_channels() == ["channel 0 holds 0 alone"]
    for top in (700, 2950, 5980):
        sparse = pixels.copy()
        sparse[top : top + 12, 2000:2012] = 180
        image = SlideImage([sparse], mpp=0.5)
        assert image.dark_channels() == []
        assert_array_equal(image.value_range, [[0, 180]])


def test_few_nuclei_of_a_picture_in_colour_are_not_averaged_away(tmp_path):
    import tifffile

    fine = np.zeros((512, 512, 3), np.uint8)
    fine[200:208, 200:208, 2] = 40
    levels, coarse = [fine], fine.astype(float)
    for _ in range(5):
        coarse = coarse.reshape(len(coarse) // 2, 2, -1, 2, 3).mean((1, 3))
        levels.append(coarse.astype(np.uint8))
    assert levels[-1].max() < 4
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(fine, subifds=5, photometric="rgb")
        for level in levels[1:]:
            file.write(level, subfiletype=1, photometric="rgb")
    image = SlideImage.open(tmp_path / "a.tif", mpp=0.5)
    assert image.num_levels == 6
    assert image.dark_channels() == []
