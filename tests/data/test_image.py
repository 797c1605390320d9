import gc

import anndata
import numpy as np
import pytest
import tifffile
import zarr
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image, ImageOps

from spatiagraph.data import SlideImage


class CountingArray:
    """Array that counts how often each of its chunks is read."""

    def __init__(self, array: np.ndarray, chunks: tuple[int, int]):
        self.array, self.chunks = array, (*chunks, *array.shape[2:])
        self.shape, self.dtype = array.shape, array.dtype
        self.reads = np.zeros([-(-n // c) for n, c in zip(array.shape, chunks, strict=False)], int)
        self.largest = 0

    def __getitem__(self, key):
        self.reads[
            tuple(
                slice(s.start // c, -(-s.stop // c))
                for s, c in zip(key[:2], self.chunks, strict=False)
            )
        ] += 1
        self.largest = max(self.largest, self.array[key].nbytes)
        return self.array[key]


def pyramid(rng: np.random.Generator, shape=(700, 900), num_levels=3, channels=()):
    full = rng.integers(0, 256, (*shape, *channels), dtype=np.uint8)
    levels = [full]
    for _ in range(num_levels - 1):
        fine = levels[-1][: levels[-1].shape[0] // 2 * 2, : levels[-1].shape[1] // 2 * 2]
        blocks = fine.reshape(fine.shape[0] // 2, 2, fine.shape[1] // 2, 2, *channels)
        levels.append(blocks.mean((1, 3)).astype(np.uint8))
    return levels


def crop_one_by_one(levels, mpp, pos, window_um, size):
    """The plain way: choose a level, read a window of it, pad, resize, cell after cell."""
    out = []
    for (x, y), window in zip(pos, np.broadcast_to(window_um, len(pos)), strict=True):
        scale, level = mpp, levels[0]
        for i, coarser in enumerate(levels):
            if mpp * 2**i <= window / size * (1 + 1e-9):
                scale, level = mpp * 2**i, coarser
        side = window / scale
        length = int(np.ceil(side - 1e-6))
        patch = np.zeros((length, length, level.shape[2] if level.ndim == 3 else 1))
        row, col = (int(np.ceil(v / scale - side / 2 - 0.5 - 1e-6)) for v in (y, x))
        for i in range(max(row, 0), min(row + length, level.shape[0])):
            lo, hi = max(col, 0), min(col + length, level.shape[1])
            patch[i - row, lo - col : hi - col] = level[i, lo:hi].reshape(hi - lo, -1) / 255
        edges = np.linspace(0, side, size + 1)
        weights = np.zeros((size, length))
        for s in range(size):
            if side >= size:
                for p in range(length):
                    overlap = min(edges[s + 1], p + 1) - max(edges[s], p)
                    weights[s, p] = max(overlap, 0) / (side / size)
            else:
                at = np.clip((s + 0.5) * side / size - 0.5, 0, length - 1)
                weights[s] = np.interp(np.arange(length), [at - 1, at, at + 1], [0, 1, 0])
        out.append(np.einsum("si,tj,ijc->cst", weights, weights, patch))
    return np.array(out)


def test_crop_at_the_corner_keeps_the_cell_in_the_middle_over_zeros():
    """SPATIA fact 1."""
    pixels = np.full((600, 800), 255, np.uint8)
    pixels[0, 0] = 102
    crops, mask = SlideImage([pixels], mpp=0.2125, value_range=(0, 255)).crops(
        np.array([[0.5, 0.5]]) * 0.2125, 256 * 0.2125, 256
    )
    assert crops.shape == (1, 1, 256, 256)
    assert mask.all()
    assert crops[0, 0, 128, 128] == np.float32(102 / 255)
    assert crops[0, 0, :128].max() == crops[0, 0, :, :128].max() == 0
    assert_allclose(crops[0, 0, 128:, 128:].sum(), 128 * 128 - 1 + 102 / 255)


@pytest.mark.parametrize("shape", [(300, 900), (900, 300)])
def test_bright_pixel_lands_in_the_middle_on_slides_that_are_not_square(shape):
    """SPATIA fact 2."""
    pixels = np.zeros(shape, np.uint8)
    row, col = shape[0] * 2 // 3, shape[1] // 5
    pixels[row, col] = 255
    image = SlideImage([pixels], mpp=0.5, origin_um=(1000.0, -50.0))
    cell = np.array([[1000 + (col + 0.5) * 0.5, -50 + (row + 0.5) * 0.5]])
    crops, _ = image.crops(cell, 16.5, 33)
    assert_array_equal(np.argwhere(crops[0, 0]), [[16, 16]])


def test_window_covers_the_same_tissue_at_any_pixel_size():
    """SPATIA fact 3."""
    assert 256 * 0.2125 == pytest.approx(54.4)
    assert 1024 * 0.2125 == pytest.approx(217.6)
    scene = np.random.default_rng(0).integers(0, 256, (16, 16)).astype(np.uint8)  # 3.4 µm squares
    fine = SlideImage([np.kron(scene, np.ones((16, 16), np.uint8))], mpp=0.2125)
    coarse = SlideImage([np.kron(scene, np.ones((8, 8), np.uint8))], mpp=0.425)
    cells = np.array([[27.2, 27.2], [30.6, 10.2]])
    for window in (54.4, 13.6):
        a, b = fine.crops(cells, window, 16)[0], coarse.crops(cells, window, 16)[0]
        assert_allclose(a, b, atol=1e-6)
    assert_allclose(fine.crops(cells[:1], 54.4, 16)[0][0, 0], scene / 255, atol=1e-6)


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize(
    ("window_um", "size"), [(16, 32), (40, 32), (37.3, 24), (7, 32), (110, 20), ("varied", 24)]
)
def test_crops_equal_one_read_per_cell(channels, window_um, size):
    rng = np.random.default_rng(1)
    levels = pyramid(rng, (300, 420), channels=channels)
    stored = [CountingArray(v, (64, 64)) for v in levels]
    pos = rng.uniform((0, 0), (210, 150), (40, 2))
    if window_um == "varied":
        window_um = rng.uniform(5, 120, 40)
    crops, mask = SlideImage(stored, mpp=0.5, value_range=(0, 255)).crops(pos, window_um, size)
    assert mask.all()
    assert_allclose(crops, crop_one_by_one(levels, 0.5, pos, window_um, size), atol=2e-6)


@pytest.mark.parametrize("chunk", [(256, 256), (300, 2200)])
@pytest.mark.parametrize("window_um", [16.0, "varied"])
def test_windows_across_blocks_of_chunks_are_whole(chunk, window_um):
    rng = np.random.default_rng(6)
    pixels = rng.integers(0, 256, (2100, 2200), dtype=np.uint8)
    seams = np.array([600, 900, 1024, 1200, 2048])  # where blocks of these chunks may end
    pos = 0.5 * np.stack(np.meshgrid(seams, seams), -1).reshape(-1, 2) + rng.uniform(-6, 6, (25, 2))
    if window_um == "varied":
        window_um = rng.uniform(8, 40, 25)
    crops, _ = SlideImage([CountingArray(pixels, chunk)], mpp=0.5).crops(pos, window_um, 20)
    assert_allclose(crops, crop_one_by_one([pixels], 0.5, pos, window_um, 20), atol=2e-6)


@pytest.mark.parametrize("chunk", [(64, 64), (300, 300), (16, 3000), (2600, 3000)])
@pytest.mark.parametrize("window_um", [20.0, "varied"])
def test_each_stored_chunk_is_read_at_most_once(chunk, window_um):
    rng = np.random.default_rng(2)
    stored = [CountingArray(v, chunk) for v in pyramid(rng, (2600, 3000), 3)]
    pos = rng.uniform((0, 0), (1500, 1300), (400, 2))
    if window_um == "varied":
        window_um = rng.uniform(4, 80, 400)
    SlideImage(stored, mpp=0.5, value_range=(0, 255)).crops(pos, window_um, 20)
    assert [s.reads.max() for s in stored] == [1, 1, 1] if np.ndim(window_um) else [0, 1, 0]


def test_crops_of_few_cells_read_little_of_the_slide():
    stored = CountingArray(np.zeros((2600, 3000), np.uint8), (100, 100))
    SlideImage([stored], mpp=0.5, value_range=(0, 255)).crops(
        np.array([[500.0, 500.0], [1020, 700]]), 20, 40
    )
    assert stored.reads.sum() <= 8
    assert stored.largest < 1024 * 1024


@pytest.mark.parametrize(("window_um", "level"), [(16, 0), (31.9, 0), (32, 1), (63, 1), (500, 2)])
def test_crops_come_from_the_coarsest_level_that_is_fine_enough(window_um, level):
    stored = [CountingArray(v, (64, 64)) for v in pyramid(np.random.default_rng(0), (400, 600))]
    SlideImage(stored, mpp=0.5, value_range=(0, 255)).crops(
        np.array([[150.0, 100.0]]), window_um, 32
    )
    assert [s.reads.any() for s in stored] == [i == level for i in range(3)]


def test_levels_of_odd_size_stay_aligned():
    """A level of 15 rows below one of 255 has pixels of exactly 16 µm, not 17."""
    fine = np.zeros((255, 319), np.uint8)
    fine[208:224, 288:304] = 255
    coarse = fine[:240, :304].reshape(15, 16, 19, 16).max((1, 3))
    image = SlideImage([fine, coarse], mpp=1.0)
    crops, _ = image.crops(np.array([[296.0, 216.0]]), 17 * 9, 9)
    assert np.unravel_index(crops[0, 0].argmax(), (9, 9)) == (4, 4)


def test_crops_outside_the_image_are_masked_and_zero():
    image = SlideImage(
        [np.full((50, 80), 9, np.uint8)], mpp=1.0, origin_um=(100, 0), value_range=(0, 255)
    )
    pos = np.array([[100.0, 0], [179.9, 49.9], [180.1, 20], [99.9, 20], [140, -1], [np.nan, 20]])
    crops, mask = image.crops(pos, 8, 8)
    assert mask.tolist() == [True, True, False, False, False, False]
    assert_array_equal(mask, image.covers(pos))
    assert crops[:2].any(axis=(1, 2, 3)).all()
    assert not crops[2:].any()


def test_crops_of_no_cell_are_empty():
    crops, mask = SlideImage([np.zeros((50, 80, 3))], mpp=1.0).crops(np.empty((0, 2)), 8, 16)
    assert crops.shape == (0, 3, 16, 16)
    assert mask.shape == (0,)


def test_values_are_scaled_by_the_recorded_range():
    ramp = np.linspace(100, 1100, 100_000).astype(np.uint16).reshape(250, 400)
    image = SlideImage([ramp], mpp=1.0)
    assert_allclose(image.value_range, np.percentile(ramp, [[0.1, 99.9]]))
    given = SlideImage([ramp], mpp=1.0, value_range=(0, 2000)).crops([[20.5, 125.5]], 1, 1)[0]
    assert_allclose(given.item(), ramp[125, 20] / 2000)


def test_tiff_pyramid_and_zarr_groups_give_the_crops_of_the_array(tmp_path):
    rng = np.random.default_rng(3)
    levels = pyramid(rng, (500, 700), channels=(3,))
    pos = rng.uniform((0, 0), (175, 125), (30, 2))
    with tifffile.TiffWriter(tmp_path / "slide.ome.tif") as tiff:
        metadata = {"axes": "YXS", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm"}
        metadata |= {"PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
        options = {"tile": (128, 128), "compression": "zlib", "photometric": "rgb"}
        tiff.write(levels[0], subifds=2, metadata=metadata, **options)
        for level in levels[1:]:
            tiff.write(level, subfiletype=1, **options)
    group = zarr.create_group(tmp_path / "plain.zarr")
    ome = zarr.create_group(tmp_path / "ome.zarr")
    datasets = []
    for i, level in enumerate(levels):
        group.create_array(str(i), data=level, chunks=(100, 100, 3))
        ome.create_array(f"s{i}", data=level.transpose(2, 0, 1), chunks=(1, 100, 100))
        scale = {"type": "scale", "scale": [1.0, 0.25 * 2**i, 0.25 * 2**i]}
        datasets.append({"path": f"s{i}", "coordinateTransformations": [scale]})
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    axes = [{"name": "c", "type": "channel"}, *axes]
    ome.attrs["ome"] = {"multiscales": [{"axes": axes, "datasets": datasets}]}

    expected, _ = SlideImage(levels, mpp=0.25).crops(pos, 20, 32)
    for name, mpp in {"slide.ome.tif": None, "plain.zarr": 0.25, "ome.zarr": None}.items():
        image = SlideImage.open(tmp_path / name, mpp=mpp)
        assert (image.mpp, image.num_levels, image.num_channels) == (0.25, 3, 3)
        assert_allclose(image.crops(pos, 20, 32)[0], expected, atol=1e-6)
    green = SlideImage.open(tmp_path / "slide.ome.tif", channels=[1]).crops(pos, 20, 32)[0]
    assert_allclose(green, expected[:, 1:2], atol=1e-6)
    array = SlideImage.open(tmp_path / "plain.zarr" / "0", mpp=0.25)
    assert array.num_levels == 1
    assert array.extent_um == (0.0, 0.0, 175.0, 125.0)


def test_z_stack_is_projected_to_its_maximum(tmp_path):
    stack = np.random.default_rng(4).integers(0, 256, (2, 5, 40, 60), dtype=np.uint8)
    metadata = {"axes": "CZYX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0}
    tifffile.imwrite(tmp_path / "stack.ome.tif", stack, metadata=metadata)
    image = SlideImage.open(tmp_path / "stack.ome.tif", value_range=(0, 255))
    crops, _ = image.crops([[20.0, 20.0]], 40, 40)
    assert_allclose(crops[0], stack.max(1)[:, :, :40] / 255, atol=1e-6)
    tifffile.imwrite(tmp_path / "plain.tif", stack[0])
    plain = SlideImage.open(tmp_path / "plain.tif", mpp=1.0, axes="ZYX", value_range=(0, 255))
    assert_allclose(plain.crops([[20.0, 20.0]], 40, 40)[0][0, 0], crops[0, 0])


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_pictures_open_without_alpha(tmp_path, mode, channels):
    Image.new(mode, (80, 50), 7 if mode in "LP" else (10, 20, 30, 40)[: len(mode)]).save(
        tmp_path / "he.png"
    )
    image = SlideImage.open(tmp_path / "he.png", mpp=2.0)
    assert image.num_channels == channels
    assert image.extent_um == (0, 0, 160, 100)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_files_open_without_alpha(tmp_path, planar):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 4), dtype=np.uint8)
    stored = pixels if planar == "contig" else np.moveaxis(pixels, 2, 0)
    tifffile.imwrite(
        tmp_path / "he.tif",
        stored,
        photometric="rgb",
        planarconfig=planar,
        extrasamples=["unassalpha"],
    )
    image = SlideImage.open(tmp_path / "he.tif", mpp=2.0)
    assert image.num_channels == 3
    whole = (slice(0, 50), slice(0, 80))
    assert_array_equal(image.pixels(*whole), pixels[..., :3])
    with_alpha = SlideImage.open(tmp_path / "he.tif", mpp=2.0, channels=[3])
    assert_array_equal(with_alpha.pixels(*whole), pixels[..., 3:])


def test_pictures_beyond_pillows_size_guard_open(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (80, 50)).save(tmp_path / "large.png")
    assert SlideImage.open(tmp_path / "large.png", mpp=1.0).num_channels == 1
    assert Image.MAX_IMAGE_PIXELS == 100


def test_image_without_pixel_size_asks_for_it(tmp_path):
    Image.new("L", (80, 50)).save(tmp_path / "he.png")
    tifffile.imwrite(tmp_path / "he.tif", np.zeros((50, 80), np.uint8))
    for name in ("he.png", "he.tif"):
        with pytest.raises(ValueError, match=rf"{name}.*pass mpp="):
            SlideImage.open(tmp_path / name)
    gc.collect()  # a file left open would warn here


@pytest.mark.parametrize("name", ["he.png", "he.jpg", "he.tif", "cut.jpg", "he.txt", "he.zarr"])
def test_files_that_cannot_be_decoded_are_named(tmp_path, name):
    path = tmp_path / name
    if name == "cut.jpg":
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:5000])
    elif name == "he.zarr":
        path.mkdir()
    else:
        path.write_bytes(b"not an image at all" * 50)
    with pytest.raises(ValueError, match=name):
        SlideImage.open(path, mpp=1.0)


@pytest.mark.parametrize("compression", ["zlib", "jpeg", "lzw"])
def test_damaged_tile_is_reported_with_its_file(tmp_path, compression):
    path = tmp_path / "slide.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)
    tifffile.imwrite(path, pixels, tile=(128, 128), compression=compression)
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) * 2 // 3] = bytes(len(data) * 2 // 3 - len(data) // 3)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"slide\.tif"):
        SlideImage.open(path, mpp=1.0).crops([[256.0, 256.0]], 400, 100)


def test_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        SlideImage.open(tmp_path / "none.tif", mpp=1.0)


def test_damaged_zarr_chunk_is_reported_with_its_file(tmp_path):
    path = tmp_path / "slide.zarr"
    array = zarr.create_array(path, shape=(100, 100), chunks=(50, 50), dtype="uint8")
    array[:] = np.random.default_rng(0).integers(0, 256, (100, 100))
    for chunk in (path / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"slide\.zarr"):
        SlideImage.open(path, mpp=1.0).crops([[50.0, 50.0]], 90, 30)


def test_bad_arguments_are_refused():
    pixels = np.zeros((50, 80), np.uint8)
    image = SlideImage([pixels], mpp=0.5)
    with pytest.raises(ValueError, match="at least one pixel.*cell 1"):
        image.crops(np.zeros((2, 2)), np.array([9.0, 0.1]), 8)
    with pytest.raises(ValueError, match=r"shape \(3,\) for 2 cells"):
        image.crops(np.zeros((2, 2)), np.ones(3), 8)
    with pytest.raises(ValueError, match=r"\[N, 2\]"):
        image.crops(np.zeros((2, 3)), 8, 8)
    with pytest.raises(ValueError, match="'mpp' as a positive number"):
        SlideImage([pixels], mpp=0)
    with pytest.raises(ValueError, match="show one area"):
        SlideImage([pixels, np.zeros((25, 20), np.uint8)], mpp=1)
    with pytest.raises(ValueError, match="fine to coarse"):
        SlideImage([pixels[::2, ::2], pixels], mpp=1)
    with pytest.raises(ValueError, match=r"\[H, W\] or \[H, W, C\]"):
        SlideImage([np.zeros((2, 3, 4, 5))], mpp=1)


def test_thumbnail_is_the_area_average_of_the_slide():
    levels = pyramid(np.random.default_rng(5), (1200, 1600), 2, channels=(3,))
    image = SlideImage(levels[:1], mpp=0.5, origin_um=(3, 4))
    small, extent = image.thumbnail(400)
    assert small.shape == (300, 400, 3)
    assert small.dtype == np.uint8
    assert extent == image.extent_um == (3, 4, 803, 604)
    expected = levels[0].reshape(300, 4, 400, 4, 3).mean((1, 3))
    assert np.abs(small - expected).max() <= 0.51
    two, _ = SlideImage([levels[0][..., :2]], mpp=0.5).thumbnail(400)
    assert_array_equal(two, small[..., [0, 1, 0]])  # magenta and green
    grey, _ = SlideImage([levels[0][..., 0]], mpp=0.5).thumbnail(5000)
    assert_array_equal(grey, levels[0][..., :1].repeat(3, 2))


def test_xenium_cells_have_bright_nuclei_in_the_middle(real_data):
    folder = real_data / "xenium_breast_crop"
    cells = anndata.read_h5ad(folder / "cells.h5ad")
    place = cells.uns["image"]
    origin = (place["origin_x_um"], place["origin_y_um"])
    mpp = place["pixel_size_um"]
    image = SlideImage.open(folder / place["file"], mpp=mpp, origin_um=origin)
    crops, mask = image.crops(cells.obsm["spatial"], 13.6, 32)
    assert crops.shape == (1135, 1, 32, 32)
    assert mask.mean() > 0.99
    assert crops[:, :, 12:20, 12:20].mean() > 1.3 * crops.mean()
    swapped, _ = image.crops(cells.obsm["spatial"][:, ::-1] - origin[::-1] + origin, 13.6, 32)
    assert crops[:, :, 12:20, 12:20].mean() > 1.3 * swapped[:, :, 12:20, 12:20].mean()


def test_her2st_spots_are_cut_from_the_histology_jpeg(real_data):
    spots = anndata.read_h5ad(real_data / "her2st" / "A1.h5ad")
    image = SlideImage.open(real_data / "her2st" / "A1_HE.jpg", mpp=2.5)
    crops, mask = image.crops(spots.obsm["spatial_px"] * 2.5, 100, 32)
    assert crops.shape == (346, 3, 32, 32)
    assert mask.all()
    # tissue is pink to purple: less green than red and blue
    assert crops[:, 1].mean() < min(crops[:, 0].mean(), crops[:, 2].mean())


def with_orientation(path, value):
    """A picture with a white corner, stored above and left, and a tag of how it is to be shown."""
    pixels = np.full((30, 40, 3), 99, np.uint8)
    pixels[:5, :5] = 255
    if path.suffix == ".tif":
        tags = [] if value is None else [(274, "H", 1, value, True)]
        tifffile.imwrite(path, pixels, photometric="rgb", extratags=tags, metadata=None)
        return
    exif = Image.Exif()
    if value is not None:
        exif[274] = value
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("value", [None, 0, 1, *range(2, 9), 9])
def test_pictures_that_are_shown_turned_are_refused(tmp_path, suffix, value):
    with_orientation(path := tmp_path / f"a{suffix}", value)
    if value in range(2, 9):
        said = f"a{suffix} with orientation {value}: shown (mirrored|turned).*-Orientation="
        with pytest.raises(ValueError, match=said):
            SlideImage.open(path, mpp=0.5)
    else:
        crop, _ = SlideImage.open(path, mpp=0.5).crops(np.array([[1.0, 1.0]]), 1, 2)
        assert crop.min() > 0.95


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
@pytest.mark.parametrize("value", range(2, 9))
def test_a_picture_written_as_it_is_shown_opens(tmp_path, suffix, value):
    with_orientation(tmp_path / f"a{suffix}", value)
    shown = ImageOps.exif_transpose(Image.open(tmp_path / f"a{suffix}"))
    shown.save(tmp_path / f"b{suffix}")
    assert SlideImage.open(tmp_path / f"b{suffix}", mpp=0.5).shape[:2] == shown.size[::-1]
