"""Where tissue is in an image, and cells that lie on it only with x and y swapped."""

import anndata
import numpy as np
import pytest

import spatiagraph as sg
from spatiagraph.data import SlideImage
from spatiagraph.data.image.tissue import tissue_share

RNG = np.random.default_rng(0)
WIDE = RNG.uniform(0, 1, (300, 2)) * (300, 150) + (600, 50)  # right and above


def stained(shape=(1000, 1000), kind="he"):
    """Tissue in x 590 to 920 and y 40 to 210, on glass or on black."""
    if kind == "he":
        image = 245 + RNG.integers(0, 5, (*shape, 3))
        image[40:210, 590:920] = RNG.integers(80, 190, (170, 330, 3))
        return image.astype(np.uint8)
    image = RNG.integers(0, 9, shape)
    image[40:210, 590:920] += RNG.integers(0, 2, (170, 330)) * RNG.integers(90, 900, (170, 330))
    return image.astype(np.uint16)


def cells(pos):
    adata = anndata.AnnData(np.ones((len(pos), 3), np.float32))
    adata.obsm["spatial"] = pos
    return adata


@pytest.mark.parametrize("kind", ["he", "dapi"])
def test_the_share_of_cells_on_tissue_is_seen(kind):
    image = SlideImage([stained(kind=kind)], mpp=1.0)
    assert tissue_share(image, WIDE) == 1.0
    assert tissue_share(image, WIDE[:, ::-1]) == 0.0


def test_an_image_without_glass_tells_nothing():
    image = SlideImage([RNG.integers(90, 160, (100, 100, 3)).astype(np.uint8)], mpp=1.0)
    assert np.isnan(tissue_share(image, WIDE / 10))


def test_a_stain_that_glows_nearly_everywhere_is_not_taken_for_glass():
    pixels = RNG.integers(0, 40, (400, 400))
    pixels[20:370, 40:390] = RNG.integers(400, 700, (350, 350))
    image = SlideImage([pixels.astype(np.uint16)], mpp=1.0)
    sg.read(cells(RNG.uniform(60, 350, (300, 2))), image=image)


@pytest.mark.parametrize("kind", ["he", "dapi"])
def test_swapped_cells_are_refused_by_the_image_and_read_when_asked(kind):
    image = SlideImage([stained(kind=kind)], mpp=1.0)
    np.testing.assert_array_equal(sg.read(cells(WIDE), image=image).pos, WIDE)
    swapped = cells(WIDE[:, ::-1].copy())
    with pytest.raises(ValueError, match=r"0% of them on it and 100% with x and y.*swap_xy=True"):
        sg.read(swapped, image=image)
    np.testing.assert_array_equal(sg.read(swapped, image=image, swap_xy=True).pos, WIDE)


def test_swapped_cells_outside_of_a_long_image_are_refused_with_the_way_on():
    image = SlideImage([stained((300, 1000))], mpp=1.0)
    with pytest.raises(ValueError, match="With x and y swapped they lie on it: pass swap_xy=True"):
        sg.read(cells(WIDE[:, ::-1].copy()), image=image)


def test_cells_beside_the_tissue_are_doubted():
    image = SlideImage([stained()], mpp=1.0)
    with pytest.warns(UserWarning, match="0% of the cells lie on what looks like tissue"):
        sg.read(cells(WIDE * (1, -1) + (0, 1000)), image=image)


@pytest.mark.parametrize(
    ("values", "words"),
    [((0, 1), "CD3 holds 0 alone"), ((0, 3), "CD3 holds 0 to 2"), ((65535, 65536), "65535 alone")],
)
def test_a_channel_that_shows_nothing_is_named(tmp_path, values, words):
    import tifffile

    pixels = RNG.integers(0, 3000, (2, 300, 300)).astype(np.uint16)
    pixels[1] = RNG.integers(*values, (300, 300))
    names = {"axes": "CYX", "Channel": {"Name": ["DAPI", "CD3"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata=names)
    with pytest.warns(UserWarning, match=f"1 of 2 channels .*: .*{words}"):
        sg.read(cells(WIDE - (600, 0)), image=tmp_path / "a.ome.tif", image_mpp=1.0)
    image = SlideImage.open(tmp_path / "a.ome.tif", mpp=1.0, channels=[0])
    assert image.channel_names == ("DAPI",)
    sg.read(cells(WIDE - (600, 0)), image=image)


def test_a_plain_tiff_called_as_hamamatsu_does_opens(tmp_path):
    import tifffile

    pixels = RNG.integers(0, 255, (40, 50, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.ndpi", pixels, photometric="rgb")
    assert SlideImage.open(tmp_path / "a.ndpi", mpp=1.0).shape == (40, 50, 3)
