"""TIFF in the ways that scanners and scripts write it: no channel is lost or black unsaid."""

import uuid
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from numpy.testing import assert_allclose, assert_array_equal

from spatiagraph.data import SlideImage

RNG = np.random.default_rng(0)
STAINS = np.stack([RNG.integers(0, 100 * (c + 1), (96, 128)) for c in range(4)]).astype(np.uint16)
QPI = "<?xml version='1.0'?><PerkinElmer-QPI-ImageDescription></PerkinElmer-QPI-ImageDescription>"
FILES = [f"ch000{c}_{n}.ome.tif" for c, n in enumerate(("dapi", "wall", "rna", "protein"))]


def stored(image: SlideImage) -> np.ndarray:
    """All pixels, channels first."""
    height, width, _ = image.shape
    return image.pixels(slice(0, height), slice(0, width)).transpose(2, 0, 1)


def write_set(folder: Path, planes: np.ndarray) -> list[Path]:
    """An OME set with a file for each channel, as Xenium writes its morphology."""
    ids = [f"urn:uuid:{uuid.UUID(int=c + 1)}" for c in range(len(planes))]
    parts = "".join(
        f'<TiffData FirstC="{c}" FirstT="0" FirstZ="0" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{FILES[c]}">{ids[c]}</UUID></TiffData>'
        for c in range(len(planes))
    )
    channels = "".join(
        f'<Channel ID="Channel:{c}" SamplesPerPixel="1"/>' for c in range(len(planes))
    )
    height, width = planes.shape[1:]
    paths = []
    for c, plane in enumerate(planes):
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?>'
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{ids[c]}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" '
            f'SizeX="{width}" SizeY="{height}" SizeZ="1" SizeC="{len(planes)}" SizeT="1" '
            f'PhysicalSizeX="0.2125" PhysicalSizeY="0.2125">{channels}{parts}</Pixels>'
            "</Image></OME>"
        )
        paths.append(folder / FILES[c])
        tifffile.imwrite(paths[-1], plane, description=xml, metadata=None)
    return paths


@pytest.mark.parametrize(
    "name", ["a.tif", "a.tiff", "a.btf", "a.tf8", "a.qptiff", "a.svs", "a.img"]
)
def test_a_tiff_is_known_by_its_content(tmp_path, name):
    options = {"bigtiff": name.endswith(("btf", "tf8")), "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / name, STAINS, metadata={"axes": "CYX"}, **options)
    assert_array_equal(stored(SlideImage.open(tmp_path / name, mpp=0.5)), STAINS)


def test_a_picture_called_tif_opens(tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 30), (10, 20, 30)).save(tmp_path / "he.png")
    (tmp_path / "he.png").rename(tmp_path / "he.tif")
    assert SlideImage.open(tmp_path / "he.tif", mpp=1.0).shape == (30, 40, 3)


@pytest.mark.parametrize("name", ["slide.qptiff", "slide.tif"])
def test_channels_pyramid_and_scale_of_a_scanner_of_stains(tmp_path, name):
    with tifffile.TiffWriter(tmp_path / name) as file:
        options = {"tile": (16, 16), "metadata": None, "description": QPI}
        options |= {"software": "PerkinElmer-QPI", "resolutionunit": "CENTIMETER"}
        for plane in STAINS:
            file.write(plane, resolution=(20_000, 20_000), **options)
        file.write(np.zeros((24, 32, 3), np.uint8), photometric="rgb", **options)  # a thumbnail
        for plane in STAINS:
            file.write(plane[::2, ::2], subfiletype=1, resolution=(10_000, 10_000), **options)
    image = SlideImage.open(tmp_path / name)
    assert_array_equal(stored(image), STAINS)
    assert (image.num_levels, image.mpp) == (2, 0.5)


def test_pixel_sizes_that_makers_write_are_read(tmp_path):
    he = RNG.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    text = "Aperio Image Library v10\r\n64x64 (32x32) JPEG/RGB Q=70|AppMag = 20|MPP = 0.4990"
    tifffile.imwrite(tmp_path / "a.svs", he, tile=(32, 32), description=text, metadata=None)
    assert SlideImage.open(tmp_path / "a.svs").mpp == 0.499
    metadata = {"axes": "CYX", "unit": "um"}
    tifffile.imwrite(tmp_path / "i.tif", STAINS, imagej=True, resolution=(4, 4), metadata=metadata)
    assert SlideImage.open(tmp_path / "i.tif").mpp == 0.25
    tifffile.imwrite(tmp_path / "p.tif", he, resolution=(72, 72), resolutionunit="INCH")
    with pytest.raises(ValueError, match="pass mpp="):  # of a print, not of tissue
        SlideImage.open(tmp_path / "p.tif")


def write_pages(path, way):
    if way == "one by one":  # a series for each page
        with tifffile.TiffWriter(path) as file:
            for plane in STAINS:
                file.write(plane)
    elif way == "without metadata":
        with tifffile.TiffWriter(path) as file:
            for plane in STAINS:
                file.write(plane, metadata=None)
    else:
        tifffile.imwrite(path, STAINS, photometric="minisblack")


@pytest.mark.parametrize("way", ["one by one", "without metadata", "as an array"])
def test_pages_without_axes_are_channels_with_a_word_about_it(tmp_path, way):
    write_pages(tmp_path / "stains.tif", way)
    with pytest.warns(UserWarning, match=r"stains\.tif has 4 pages.*channels.*axes="):
        image = SlideImage.open(tmp_path / "stains.tif", mpp=0.5)
    assert_array_equal(stored(image), STAINS)
    planes = SlideImage.open(tmp_path / "stains.tif", mpp=0.5, axes="ZYX")
    assert_array_equal(stored(planes), STAINS.max(0)[None])
    with pytest.warns(UserWarning, match="4 pages"):
        third = SlideImage.open(tmp_path / "stains.tif", mpp=0.5, channels=[2])
    assert_array_equal(stored(third), STAINS[2:3])


def test_channels_behind_the_pixels_are_channels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STAINS[:2].transpose(1, 2, 0), photometric="minisblack")
    assert_array_equal(stored(SlideImage.open(tmp_path / "a.tif", mpp=0.5)), STAINS[:2])


@pytest.mark.parametrize("shape", [(2, 4, 32, 40), (2, 32, 40, 3)])
def test_axes_that_cannot_be_told_are_asked_for(tmp_path, shape):
    pixels = RNG.integers(0, 255, shape, dtype=np.uint8)
    photometric = "rgb" if shape[-1] == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=photometric)
    with pytest.raises(ValueError, match=r"axes with names in .*a\.tif.*axes="):
        SlideImage.open(tmp_path / "a.tif", mpp=0.5)
    axes = "ZYXS" if shape[-1] == 3 else "ZCYX"
    assert_array_equal(
        SlideImage.open(tmp_path / "a.tif", mpp=0.5, axes=axes).pixels(slice(0, 32), slice(0, 40)),
        pixels.max(0) if shape[-1] == 3 else pixels.max(0).transpose(1, 2, 0),
    )


def test_the_slide_is_the_largest_image_of_a_file(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((24, 24, 3), np.uint8), photometric="rgb", metadata=None)  # macro
        file.write(STAINS[1], metadata=None)
    assert_array_equal(stored(SlideImage.open(tmp_path / "a.tif", mpp=0.5)), STAINS[1:2])


def test_several_images_of_one_size_are_told(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for plane in STAINS[:2]:
            file.write(plane, metadata={"axes": "YX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0})
    with pytest.warns(UserWarning, match=r"a\.ome\.tif holds 2 images"):
        image = SlideImage.open(tmp_path / "a.ome.tif")
    assert_array_equal(stored(image), STAINS[:1])


@pytest.mark.parametrize("lost", [[1, 2, 3], [2], [0]])
def test_channels_whose_files_are_missing_are_left_out_and_named(tmp_path, lost):
    paths = write_set(tmp_path, STAINS)
    kept = [c for c in range(4) if c not in lost]
    for c in lost:
        paths[c].unlink()
    first = paths[kept[0]]
    with pytest.warns(UserWarning, match=rf"{FILES[lost[0]]}.*missing.*left out"):
        image = SlideImage.open(first)
    assert_array_equal(stored(image), STAINS[kept])
    assert_array_equal(stored(SlideImage.open(first, channels=kept[:1])), STAINS[kept[:1]])
    with pytest.raises(ValueError, match=rf"planes of channels {lost[0]}.*{FILES[lost[0]]}"):
        SlideImage.open(first, channels=[lost[0]])


def test_a_set_that_is_whole_has_all_channels(tmp_path):
    paths = write_set(tmp_path, STAINS)
    for path in paths:
        assert_array_equal(stored(SlideImage.open(path)), STAINS)


def test_planes_that_metadata_promises_and_the_file_lacks(tmp_path):
    path = write_set(tmp_path, STAINS[:1])[0]
    text = tifffile.tiffcomment(path).replace('SizeC="1"', 'SizeC="3"')
    tifffile.tiffcomment(path, text.encode())
    with pytest.raises(ValueError, match=r"channels 1, 2, but 2 of 3 planes of ch0000.*copy it"):
        SlideImage.open(path)
    assert_array_equal(stored(SlideImage.open(path, channels=[0])), STAINS[:1])


@pytest.mark.parametrize("name", ["slide.mrxs", "slide.vsi"])
def test_covers_of_slides_are_not_taken_for_slides(tmp_path, name):
    tifffile.imwrite(tmp_path / name, STAINS[0])
    with pytest.raises(ValueError, match="small picture of the slide"):
        SlideImage.open(tmp_path / name, mpp=0.5)


def test_an_image_inside_of_a_group_of_images_opens(tmp_path):
    root = zarr.create_group(tmp_path / "raw.zarr")
    image = root.create_group("0")
    image.create_array("0", data=STAINS[:, None], chunks=(1, 1, 32, 32))
    scale = {"type": "scale", "scale": [1.0, 1.0, 0.5, 0.5]}
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    axes = [{"name": "c", "type": "channel"}, *axes]
    datasets = [{"path": "0", "coordinateTransformations": [scale]}]
    image.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": datasets}]}
    opened = SlideImage.open(tmp_path / "raw.zarr")
    assert_array_equal(stored(opened), STAINS)
    assert_allclose(opened.mpp, 0.5)
    root.create_group("1").attrs["ome"] = dict(image.attrs["ome"])
    with pytest.raises(ValueError, match="one image, got 2: 0, 1"):
        SlideImage.open(tmp_path / "raw.zarr")
