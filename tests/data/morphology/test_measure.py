"""Nuclei of known shape, measured."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from skimage.measure import perimeter_crofton

from spatiagraph.data import MORPHOLOGY, make_tissue, measure_morphology

ROW, COLUMN = np.mgrid[:64, :64] - 31.5


def ellipse(major, minor, at=(0.0, 0.0), angle=0.0):
    """Half axes in pixels, ``[64, 64]``; 1 inside, 0 outside, an edge one pixel wide."""
    y, x = ROW - at[0], COLUMN - at[1]
    u, v = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return np.clip((1 - np.hypot(u / major, v / minor)) * minor + 0.5, 0, 1)


def measured(*pictures, **options):
    return measure_morphology(np.stack(pictures)[:, None], **{"mpp": 0.5, **options})


@pytest.mark.parametrize("radius", [6, 10, 20])
def test_a_disc_has_the_size_and_shape_of_a_disc(radius):
    disc = measured(ellipse(radius, radius) * 0.5 + 0.2).loc[0]
    assert disc["area_um2"] == pytest.approx(np.pi * (radius / 2) ** 2, rel=0.02)
    assert disc["perimeter_um"] == pytest.approx(np.pi * radius, rel=0.05)
    assert disc["eccentricity"] == pytest.approx(0, abs=1e-6)
    assert disc["solidity"] > 0.93  # the hull of a disc of pixels has corners
    assert disc["major_axis_um"] == pytest.approx(radius, rel=0.02)
    assert disc["minor_axis_um"] == pytest.approx(radius, rel=0.02)
    assert disc["intensity_max"] == pytest.approx(0.7)
    assert 0.2 < disc["intensity_min"] < disc["intensity_mean"] < 0.7


@pytest.mark.parametrize("angle", [0.0, 0.4, np.pi / 2])
def test_an_ellipse_has_its_axes_whichever_way_it_lies(angle):
    found = measured(ellipse(20, 10, angle=angle)).loc[0]
    assert found["major_axis_um"] == pytest.approx(20, rel=0.02)
    assert found["minor_axis_um"] == pytest.approx(10, rel=0.02)
    assert found["eccentricity"] == pytest.approx(np.sqrt(0.75), rel=0.01)
    assert found["area_um2"] == pytest.approx(np.pi * 50, rel=0.02)
    other = perimeter_crofton(ellipse(20, 10, angle=angle) > 0.5) / 2
    assert found["perimeter_um"] == pytest.approx(other, rel=0.05)


def test_grey_values_are_those_of_the_object_alone():
    inside = ellipse(10, 10) > 0.5
    values = 0.6 + 0.3 * np.random.default_rng(0).random((64, 64))
    found = measured(np.where(inside, values, 0.1)).loc[0]
    expected = [f(values[inside]) for f in (np.mean, np.max, np.min, np.std)]
    columns = ["intensity_mean", "intensity_max", "intensity_min", "intensity_std"]
    assert_allclose(found[columns].astype(float), expected, rtol=1e-5)


def test_a_dark_nucleus_has_the_shape_of_a_bright_one():
    picture = ellipse(15, 9, angle=0.3) * 0.6 + 0.1
    bright, dark = measured(picture), measured(1 - picture, foreground="dark")
    shape = [name for name in MORPHOLOGY if "intensity" not in name]
    pd.testing.assert_frame_equal(dark[shape], bright[shape])
    assert_allclose(dark["intensity_mean"], 1 - bright["intensity_mean"], rtol=1e-5)
    assert_allclose(dark["intensity_min"], 1 - bright["intensity_max"], rtol=1e-5)


def test_of_several_objects_the_largest_counts_or_the_central_one():
    two = ellipse(12, 12, at=(-15, -15)) + ellipse(5, 5, at=(8, 4))
    assert measured(two).loc[0, "major_axis_um"] == pytest.approx(12, rel=0.03)
    central = measured(two, component="center")
    assert central.loc[0, "major_axis_um"] == pytest.approx(5, rel=0.03)


def test_images_do_not_touch_each_other():
    """Components are found in many images at once."""
    rng = np.random.default_rng(0)
    many = [ellipse(*rng.uniform(4, 12, 2), at=rng.uniform(-15, 15, 2)) for _ in range(6)]
    together = measured(*many)
    alone = pd.concat([measured(picture) for picture in many], ignore_index=True)
    pd.testing.assert_frame_equal(together, alone)
    assert together["area_um2"].nunique() == 6


def test_a_mask_beats_the_threshold():
    picture = ellipse(15, 15)
    mask = np.stack([ellipse(6, 6) > 0.5])
    for foreground in ("bright", "dark", "mask"):
        found = measured(picture, masks=mask, foreground=foreground).loc[0]
        assert found["major_axis_um"] == pytest.approx(6, rel=0.03)
        assert found["intensity_min"] == 1.0


def test_numbers_in_a_mask_tell_touching_cells_apart():
    left, right = COLUMN < 0, COLUMN >= 0
    disc = ellipse(20, 20)
    mask = ((disc > 0.5) * np.where(left, 700, 3))[None]
    halves = measured(disc, masks=mask), measured(disc, masks=(disc > 0.5)[None] & right)
    pd.testing.assert_frame_equal(halves[0], halves[1])
    both = measured(disc, disc, masks=np.concatenate([mask, mask]))
    assert_allclose(both["area_um2"], np.pi * 50, rtol=0.02)


def test_nothing_to_measure_is_a_row_without_values():
    blank, disc = np.full((64, 64), 0.3), ellipse(9, 9)
    table = measured(disc, blank, disc)
    assert table.notna().all(axis=1).tolist() == [True, False, True]
    assert table.loc[1].isna().all()
    empty = np.stack([disc > 0.5, np.zeros((64, 64), bool)])
    assert measured(disc, disc, masks=empty)["area_um2"].notna().tolist() == [True, False]
    assert measured(blank).isna().all(axis=None)
    assert measure_morphology(np.zeros((0, 1, 8, 8)), mpp=1).shape == (0, 10)


def test_one_pixel_is_measured_without_complaint():
    picture = np.zeros((64, 64))
    picture[5, 7] = 1
    row = measured(picture).loc[0]
    assert row.notna().all()
    assert row["area_um2"] == 0.25


def test_units_follow_the_pixel_size():
    picture = ellipse(14, 9)
    fine, coarse = measured(picture, mpp=0.25).loc[0], measured(picture, mpp=1.0).loc[0]
    for name in MORPHOLOGY:
        factor = {"um2": 16, "um": 4}.get(name.rsplit("_", 1)[-1], 1)
        assert coarse[name] == pytest.approx(factor * fine[name])
    each = measured(picture, picture, mpp=[0.25, 1.0])
    assert_allclose(each.loc[1], coarse)


def test_colours_count_as_their_mean_and_tensors_as_arrays():
    grey = ellipse(12, 8) * 0.5
    colour = np.stack([grey * 0.5, grey, grey * 1.5])[None].astype(np.float32)
    known = measured(grey)
    assert_allclose(measure_morphology(colour, mpp=0.5), known, rtol=1e-5)
    assert_allclose(measure_morphology(torch.from_numpy(colour), mpp=0.5), known, rtol=1e-5)


def test_nuclei_of_synthetic_tissue_have_the_size_they_were_drawn_with():
    slide = make_tissue(200, image="dapi", seed=0)
    obs = slide.adata.obs
    crops, inside = slide.image.crops(slide.adata.obsm["spatial"], window_um=16, size_px=32)
    table = measure_morphology(crops, mpp=0.5, component="center")
    known = np.pi * obs["nucleus_major_um"] * obs["nucleus_minor_um"]
    ratio = table["area_um2"].to_numpy() / known.to_numpy()
    assert inside.all()
    # half of the nuclei touch no other
    assert np.quantile(ratio, [0.1, 0.25, 0.5]) == pytest.approx(1, abs=0.08)


def test_bad_input_is_refused():
    disc = ellipse(9, 9)
    with pytest.raises(ValueError, match=r"\[N, C, H, W\], got \[64, 64\]"):
        measure_morphology(disc, mpp=1)
    with pytest.raises(ValueError, match=r"in 1 of 2 images \(first: \[1\]\).*\[-1, 1\]"):
        measured(disc, disc * 2 - 1)
    with pytest.raises(ValueError, match=r"first: \[0\]"):
        measured(disc * np.nan)
    with pytest.raises(ValueError, match="divide them by 255"):
        measure_morphology(np.zeros((1, 1, 8, 8), np.uint8), mpp=1)
    with pytest.raises(ValueError, match="got 'blue'"):
        measured(disc, foreground="blue")
    with pytest.raises(ValueError, match="got 'any'"):
        measured(disc, component="any")
    with pytest.raises(ValueError, match="'masks' with foreground"):
        measured(disc, foreground="mask")
    with pytest.raises(ValueError, match=r"bool or integers \[1, 64, 64\], got float64"):
        measured(disc, masks=disc[None])
    with pytest.raises(ValueError, match="'mpp' as µm per pixel, one or 1, got 0"):
        measured(disc, mpp=0)
