"""Damaged images: named in one line when they are opened, read or written, whatever the library."""

import random
import warnings

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from typer.testing import CliRunner

from spatiagraph.cli import app
from spatiagraph.data import make_tissue
from spatiagraph.data.image import SlideImage
from spatiagraph.data.read import read
from spatiagraph.data.writing import write

PIXELS = np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8)


def plain(path):
    tifffile.imwrite(path, PIXELS)


def tiled(path):
    tifffile.imwrite(path, PIXELS, tile=(32, 32), compression="zlib")


def jpeg_tiles(path):
    tifffile.imwrite(path, PIXELS, tile=(32, 32), compression="jpeg", photometric="ycbcr")


def ome(path):
    metadata = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, PIXELS.transpose(2, 0, 1), ome=True, metadata=metadata)


def pyramid(path):
    with tifffile.TiffWriter(path) as file:
        file.write(PIXELS, subifds=1, tile=(32, 32))
        file.write(PIXELS[::2, ::2], subfiletype=1, tile=(32, 32))


def imagej(path):
    tifffile.imwrite(path, PIXELS[..., 0].astype(np.uint16), imagej=True)


def picture(path):
    Image.fromarray(PIXELS).save(path)


FILES = {
    "plain.tif": plain, "tiled.tif": tiled, "jpeg.tif": jpeg_tiles, "a.ome.tif": ome,
    "pyramid.tif": pyramid, "imagej.tif": imagej, "a.png": picture, "a.jpg": picture,
}  # fmt: skip
SLOW_SEEDS = [pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9)]
files = pytest.mark.parametrize("name", FILES)


def all_pixels(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = SlideImage.open(path, mpp=0.5)
    image.check_pixels()
    return image.pixels(slice(0, image.shape[0]), slice(0, image.shape[1]))


@files
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.95])
def test_an_image_that_was_cut_is_refused_with_its_name(tmp_path, name, share):
    if name == "a.ome.tif" and share > 0.5:
        pytest.skip("pages behind the cut are no pages of it, and left out with a warning")
    path = tmp_path / name
    FILES[name](path)
    assert all_pixels(path).shape[:2] == PIXELS.shape[:2]
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=name):
        all_pixels(path)


@files
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 9))]
)
def test_damage_anywhere_is_named_or_stays_within_pixels(tmp_path, name, seed):
    """Bytes of pixels have no checksum but in a PNG; all else is refused in one line."""
    path = tmp_path / name
    FILES[name](path)
    content, draw = path.read_bytes(), random.Random(seed)
    for _ in range(20):
        damaged = bytearray(content)
        start, end = draw.choice([(0, len(content)), (0, 400), (len(content) - 400, len(content))])
        for _ in range(draw.choice([1, 4, 30])):
            damaged[draw.randrange(max(start, 0), end)] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            all_pixels(path)
        except ValueError as err:
            said = str(err)
        else:
            continue
        assert name in said
        assert "\n" not in said


@pytest.mark.parametrize("name", ["plain.tif", "tiled.tif", "pyramid.tif"])
def test_a_slide_is_not_prepared_with_an_image_that_is_cut(tmp_path, name):
    """Its first rows are there, so that it opens; the rest is missed when pixels are needed."""
    slide = make_tissue(60, num_genes=20, seed=0)
    write(slide, tmp_path / "cells.h5ad")
    FILES[name](tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) * 9 // 10])
    arguments = ["prepare", str(tmp_path / "cells.h5ad"), "--image", str(tmp_path / name)]
    arguments += ["--image-mpp", "20", "--out", str(tmp_path / "out.h5ad")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert name in done.output
    assert not (tmp_path / "out.h5ad").exists()


def test_a_tile_that_cannot_be_decoded_stops_the_writing(tmp_path):
    slide = make_tissue(60, num_genes=20, seed=0)
    tiled(tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages[0].dataoffsets[-1]
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[place : place + 20] = bytes(20)
    (tmp_path / "a.tif").write_bytes(content)
    slide.image = SlideImage.open(tmp_path / "a.tif", mpp=20)
    with pytest.raises(ValueError, match=r"a\.tif to be readable, but rows"):
        write(slide, tmp_path / "out.h5ad")
    assert not (tmp_path / "out.h5ad").exists()


@pytest.mark.parametrize("values", [PIXELS[..., 0] * 1j, np.zeros((0, 5, 3), np.uint8)])
def test_pixels_that_are_no_real_numbers_are_refused(values):
    with pytest.raises(ValueError, match="pixels that are real numbers"):
        SlideImage([values], mpp=1.0)


def test_a_pyramid_does_not_reach_outside_of_its_folder(tmp_path):
    zarr.create_array(tmp_path / "secret", data=PIXELS[..., 0])
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    axes = [{"name": a, "type": "space"} for a in "yx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "../secret"}]}]
    with pytest.raises(ValueError, match=r"inside of .*a\.zarr, got '\.\./secret'"):
        SlideImage.open(tmp_path / "a.zarr", mpp=1.0)


@pytest.mark.parametrize("scales", [3, "x", [], [{}], [{"datasets": 1}], [{"datasets": [{}]}]])
def test_metadata_of_a_pyramid_that_is_none_is_refused(tmp_path, scales):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.attrs["multiscales"] = scales
    with pytest.raises(ValueError, match=r"a\.zarr"):
        SlideImage.open(tmp_path / "a.zarr", mpp=1.0)


def test_an_h5ad_opens_no_image_but_those_beside_it(tmp_path):
    inside, elsewhere = tmp_path / "inside", tmp_path / "elsewhere"
    for folder in (inside, inside / "images", elsewhere):
        folder.mkdir()
    tifffile.imwrite(elsewhere / "a.tif", np.zeros((400, 400, 3), np.uint8))
    tifffile.imwrite(inside / "images" / "a.tif", np.zeros((400, 400, 3), np.uint8))
    slide = make_tissue(60, num_genes=20, seed=0)
    write(slide, inside / "cells.h5ad")
    beside = read(inside / "cells.h5ad", image=inside / "images" / "a.tif", image_mpp=1.5)
    write(beside, inside / "beside.h5ad")
    again = read(inside / "beside.h5ad").image
    assert again is not None
    assert again.mpp == 1.5
    (inside / "link.tif").symlink_to(elsewhere / "a.tif")
    for name in (elsewhere / "a.tif", inside / "link.tif", inside / ".." / "elsewhere" / "a.tif"):
        beside.adata.uns["spatiagraph"]["read"]["image_file"] = str(name)
        write(beside, inside / "named.h5ad")
        with pytest.warns(UserWarning, match=r"does not lie beside named\.h5ad. Pass image=…"):
            assert read(inside / "named.h5ad").image is None
        if name.name == "a.tif":  # told where it is, with the scale that was noted
            told = read(inside / "named.h5ad", image=elsewhere / "a.tif").image
            assert told is not None
            assert told.mpp == 1.5
