"""Pixels that are held for crops: as they are stored, and never more than the bound."""

import gc

import numpy as np
import pytest
import zarr

from spatiagraph.data import Slide, SlideImage, make_tissue
from spatiagraph.data.crops import CropSource
from spatiagraph.data.image import HELD
from spatiagraph.data.image.formats import as_level
from spatiagraph.data.image.held import HeldPixels


class Stored:
    """An array that counts how often each of its pixels was decoded."""

    def __init__(self, array, chunks):
        self.array, self.chunks, self.dtype, self.shape = array, chunks, array.dtype, array.shape
        self.reads = np.zeros(array.shape[:2], int)

    def __getitem__(self, key):
        self.reads[key[:2]] += 1
        return self.array[key]


@pytest.fixture
def stored():
    pixels = np.random.default_rng(0).integers(0, 256, (700, 1000, 3), dtype=np.uint8)
    return Stored(pixels, (100, 300, 3))


def test_windows_are_those_of_the_image_and_decoded_once(stored):
    held, level = HeldPixels(10**8), as_level(stored, "the image")
    for top, left, side in ((0, 0, 700), (250, 500, 90), (299, 599, 2), (690, 990, 10)):
        window = held.read(level, slice(top, top + side), slice(left, left + side))
        assert np.array_equal(window, stored.array[top : top + side, left : left + side])
    assert stored.reads.max() == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pixels_are_held_in_the_type_they_are_stored_in(dtype):
    stored = Stored(np.zeros((300, 300, 1), dtype), (300, 300, 1))
    held, level = HeldPixels(10**8), as_level(stored, "the image")
    held.read(level, slice(0, 5), slice(0, 5))
    assert held.num_bytes == stored.array.nbytes


def test_what_was_not_used_for_longest_goes_where_there_is_no_room(stored):
    block = 100 * 300 * 3
    held, level = HeldPixels(2 * block), as_level(stored, "the image")

    def read(left):
        held.read(level, slice(0, 10), slice(left, left + 10))
        assert held.num_bytes <= held.max_bytes
        return [int(stored.reads[0, x]) for x in (0, 300, 600)]

    assert [read(left) for left in (0, 300, 0, 600)][-1] == [1, 1, 1]
    assert read(0) == [1, 1, 1]  # the one of 300 had to go, not this
    assert read(300) == [1, 2, 1]


def test_nothing_is_held_of_an_image_that_is_gone(stored):
    held = HeldPixels(10**8)
    levels = [as_level(stored, "the image") for _ in range(2)]
    for level in levels:
        held.read(level, slice(0, 10), slice(0, 10))
    both = held.num_bytes
    del levels[0], level
    gc.collect()
    assert held.num_bytes == both / 2


def test_crops_are_the_same_with_room_and_without(tmp_path, monkeypatch):
    """And a slide of 8 bits is held as 8 bits, whatever its crops take."""
    slide = make_tissue(200, num_genes=20, image="he", seed=0)
    pixels = slide.image.pixels(slice(None), slice(None))
    store = zarr.create_array(tmp_path / "image.zarr", shape=pixels.shape, dtype=np.uint8)
    store[:] = pixels
    image = SlideImage.open(tmp_path / "image.zarr", mpp=slide.image.mpp, axes="YXC")
    sources = [
        CropSource(Slide(slide.adata, i, slide_id="s"), slide.pos, 13.6, 64)
        for i in (image, slide.image)
    ]
    before = HELD.num_bytes
    crops, inside = sources[0].read()
    assert inside.all()
    assert crops.nbytes > 10 * pixels.nbytes
    assert HELD.num_bytes - before <= pixels.nbytes
    assert (crops == sources[1].read()[0]).all()
    monkeypatch.setattr(HELD, "max_bytes", 0)
    assert (crops == sources[0].read()[0]).all()
    assert HELD.num_bytes == 0
