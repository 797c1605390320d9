"""Damaged images: named in one line when they are opened, read or written, whatever the library."""

import random
import struct
import warnings
import zlib

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


def stains(path):
    """A pyramid of several channels, whose levels are directories below their pages."""
    planes = np.ascontiguousarray(PIXELS.transpose(2, 0, 1))
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(planes, subifds=2, tile=(32, 32), metadata={"axes": "CYX"})
        for step in (2, 4):
            file.write(planes[:, ::step, ::step], subfiletype=1, tile=(32, 32))


def chain(path):
    """A pyramid whose levels follow each other, as scanners write it."""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for step in (1, 2, 4):
            level = np.ascontiguousarray(PIXELS[::step, ::step])
            file.write(level, metadata=None, tile=(32, 32), subfiletype=int(step > 1))


def pages(path):
    with tifffile.TiffWriter(path, byteorder=">") as file:
        for plane in PIXELS.transpose(2, 0, 1):
            file.write(plane, metadata=None, contiguous=False)


def imagej(path):
    tifffile.imwrite(path, PIXELS[..., 0].astype(np.uint16), imagej=True)


def hyperstack(path):
    planes = PIXELS.transpose(2, 0, 1).astype(np.uint16)
    tifffile.imwrite(path, planes, imagej=True, metadata={"axes": "CYX"})


def picture(path):
    Image.fromarray(PIXELS).save(path)


FILES = {
    "plain.tif": plain, "tiled.tif": tiled, "jpeg.tif": jpeg_tiles, "a.ome.tif": ome,
    "pyramid.tif": pyramid, "imagej.tif": imagej, "a.png": picture, "a.jpg": picture,
    "stains.ome.tif": stains, "chain.tif": chain, "pages.tif": pages, "hyper.tif": hyperstack,
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
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.45, 0.7, 0.8, 0.95, 0.99])
def test_an_image_that_was_cut_is_refused_with_its_name(tmp_path, name, share):
    path = tmp_path / name
    FILES[name](path)
    assert all_pixels(path).shape[:2] == PIXELS.shape[:2]
    content = path.read_bytes()
    if name == "imagej.tif" and share == 0.99:
        return  # what ImageJ keeps of its own is behind the pixels
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


def changed(content, at, form, *values):
    return content[:at] + struct.pack(form, *values) + content[at + struct.calcsize(form) :]


@pytest.mark.parametrize("name", ["plain.tif", "jpeg.tif", "stains.ome.tif", "hyper.tif"])
@pytest.mark.parametrize("kind", [2, 3, 5, 12])
def test_a_tag_of_another_type_or_number_is_named_or_changes_nothing(tmp_path, name, kind):
    """A tag is its code, the type and the number of its values, and the values or their place."""
    path = tmp_path / name
    FILES[name](path)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        places = [tag.offset for tag in file.pages[0].tags]
    for place in places:
        for number in (0, 1, 2, 2**32 - 1):
            path.write_bytes(changed(content, place + 2, "<HI", kind, number))
            try:
                all_pixels(path)
            except ValueError as err:
                said = str(err)
            else:
                continue
            assert name in said
            assert "\n" not in said


def directories(path):
    """Place of the link behind each directory of a classic TIFF."""
    with tifffile.TiffFile(path) as file:
        return [page.offset + 2 + 12 * len(page.tags) for page in file.pages]


@pytest.mark.parametrize("to", [2**31, 8, 3, "end"])
def test_directories_that_lead_elsewhere_are_refused(tmp_path, to):
    """Behind the file, in a circle, into its head, and to pixels."""
    path = tmp_path / "pages.tif"
    pages(path)
    content, places = path.read_bytes(), directories(path)
    target = len(content) - 4 if to == "end" else to
    path.write_bytes(changed(content, places[1], ">I", target))
    with pytest.raises(ValueError, match=r"director.*pages\.tif.*damaged or incomplete"):
        all_pixels(path)


def test_a_level_of_one_channel_that_is_lost_is_no_smaller_pyramid(tmp_path):
    path = tmp_path / "stains.ome.tif"
    stains(path)
    content = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        links = file.pages[0].tags[330].valueoffset
    for target in (0, 5, 2**31):
        path.write_bytes(changed(content, links + 4, "<I", target))
        with pytest.raises(ValueError, match=r"level 2 of directory 0 .*stains\.ome\.tif"):
            all_pixels(path)


def test_an_image_that_metadata_promises_and_the_file_lacks_is_refused(tmp_path):
    ome(tmp_path / "a.ome.tif")
    text = tifffile.tiffcomment(tmp_path / "a.ome.tif")
    larger = '<Image ID="Image:9"><Pixels ID="Pixels:9" SizeX="960" SizeY="960" SizeC="1" '
    larger += 'SizeZ="1" SizeT="1" DimensionOrder="XYCZT" Type="uint8"></Pixels></Image></OME>'
    tifffile.tiffcomment(tmp_path / "a.ome.tif", text.replace("</OME>", larger).encode())
    with pytest.raises(ValueError, match=r"960 × 960 pixels in .*a\.ome\.tif, as its OME"):
        all_pixels(tmp_path / "a.ome.tif")
    hyperstack(tmp_path / "a.tif")
    text = tifffile.tiffcomment(tmp_path / "a.tif").replace("images=3", "images=9")
    tifffile.tiffcomment(tmp_path / "a.tif", text.replace("channels=3", "channels=9"))
    with pytest.raises(ValueError, match=r"9 images in .*a\.tif, as ImageJ wrote, got 3"):
        all_pixels(tmp_path / "a.tif")


def hamamatsu(path):
    """An NDPI of one tile: places of 64 bits, whose upper halves are behind the directory."""
    pixels = PIXELS.tobytes()
    tags = [
        (256, 4, 1, 96), (257, 4, 1, 96), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 12), (277, 3, 1, 3), (278, 4, 1, 96), (279, 4, 1, len(pixels)),
        (65420, 4, 1, 1),
    ]  # fmt: skip
    start = 12 + len(pixels)
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    last = struct.pack("<HQ", len(tags), 0)
    path.write_bytes(
        struct.pack("<2sHQ", b"II", 42, start) + pixels + last[:2] + body + last[2:]
        + bytes(4 * len(tags))
    )  # fmt: skip


def test_directories_of_hamamatsu_are_followed(tmp_path):
    path = tmp_path / "a.ndpi"
    hamamatsu(path)
    np.testing.assert_array_equal(all_pixels(path), PIXELS)
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(ValueError, match=r"a\.ndpi"):
        all_pixels(path)


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
    tifffile.imwrite(elsewhere / "a.tif", np.full((400, 400, 3), 9, np.uint8))
    tifffile.imwrite(inside / "images" / "a.tif", np.full((400, 400, 3), 9, np.uint8))
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


def test_a_picture_that_claims_more_than_it_can_hold_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (8, 8)).save(path)
    content = path.read_bytes()
    size = content.index(b"IHDR") + 4
    head = struct.pack(">II", 60_000, 60_000) + content[size + 8 : size + 13]
    sum_of_it = struct.pack(">I", zlib.crc32(b"IHDR" + head))
    path.write_bytes(content[:size] + head + sum_of_it + content[size + 17 :])
    with pytest.raises(ValueError, match=r"a.png of \d+ bytes that claims to hold 3,600,000,000"):
        SlideImage.open(path, mpp=1.0)


def test_a_length_for_which_there_is_no_memory_is_damage(tmp_path):
    path = tmp_path / "a.ome.tif"
    pixels = np.zeros((32, 32), np.uint8)
    tifffile.imwrite(path, pixels, metadata={"axes": "YX"})
    with tifffile.TiffFile(path) as tiff:
        xml = tiff.ome_metadata.replace('PlaneCount="1"', f'PlaneCount="{10**15}"')
    tifffile.imwrite(path, pixels, description=xml, metadata=None)
    with pytest.raises(ValueError, match="a.ome.tif"):
        SlideImage.open(path, mpp=1.0)
