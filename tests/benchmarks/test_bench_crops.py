"""Crops of 10,000 cells from a tiled pyramid, beside one read per cell."""

import time

import numpy as np
import pytest
import tifffile
import zarr

from spatiagraph.data import SlideImage

NUM_CELLS, WINDOW_UM, SIZE = 10_000, 32.0, 32
MPP = 0.5  # 64 px windows


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """RGB image of 1024 x 1024 µm in compressed tiles, with its cells in µm."""
    path = tmp_path_factory.mktemp("crops") / "slide.tif"
    rng = np.random.default_rng(0)
    pixels = np.kron(
        rng.integers(0, 256, (512, 512, 3), dtype=np.uint8), np.ones((4, 4, 1), np.uint8)
    )
    options = {"tile": (256, 256), "compression": "zlib", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(pixels, subifds=1, **options)
        tiff.write(pixels[::2, ::2], subfiletype=1, **options)
    return path, rng.uniform(0, 1024, (NUM_CELLS, 2))


def one_read_per_cell(path, pos) -> np.ndarray:
    """What a plain loop does: every cell reads its own window of the right level."""
    out = np.zeros((len(pos), 3, SIZE, SIZE), np.float32)
    with tifffile.TiffFile(path) as tiff:
        level = zarr.open_array(tiff.series[0].aszarr(level=1), mode="r")
        corner = np.ceil(pos[:, ::-1] / (2 * MPP) - SIZE / 2 - 0.5 - 1e-6).astype(int)
        for i, (row, col) in enumerate(corner):
            top, left = max(row, 0), max(col, 0)
            window = level[top : row + SIZE, left : col + SIZE]
            h, w = window.shape[:2]
            out[i, :, top - row : top - row + h, left - col : left - col + w] = (
                window.transpose(2, 0, 1) / 255
            )
    return out


@pytest.mark.benchmark
def test_bench_crops_against_one_read_per_cell(benchmark, slide):
    path, pos = slide
    some = np.arange(0, NUM_CELLS, 10)  # a tenth of the loop is enough to time it
    start = time.perf_counter()
    loop = one_read_per_cell(path, pos[some])
    loop_seconds = (time.perf_counter() - start) * NUM_CELLS / len(some)
    image = SlideImage.open(path, mpp=MPP)
    crops, mask = benchmark.pedantic(
        image.crops, (pos, WINDOW_UM, SIZE), rounds=5, warmup_rounds=1, iterations=1
    )
    assert mask.all()
    np.testing.assert_allclose(crops[some], loop, atol=1e-6)
    benchmark.extra_info["cells_per_second"] = NUM_CELLS / benchmark.stats["median"]
    benchmark.extra_info["times_faster"] = loop_seconds / benchmark.stats["median"]


@pytest.mark.benchmark
@pytest.mark.parametrize(("window_um", "size_px"), [(13.6, 32), (54.4, 64), (40.8, 224)])
def test_bench_crops_that_are_resized(benchmark, slide, window_um, size_px):
    path, pos = slide
    image = SlideImage.open(path, mpp=MPP)
    benchmark.pedantic(image.crops, (pos[:1000], window_um, size_px), rounds=3, warmup_rounds=1)
    benchmark.extra_info["cells_per_second"] = 1000 / benchmark.stats["median"]
