"""Features by CellProfiler's names."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from spatiagraph.data import (
    cellprofiler_names,
    make_tissue,
    measure_cellprofiler,
    measure_morphology,
    measure_nuclei,
)
from spatiagraph.data.recipe import Crop
from spatiagraph.evaluate import extract_features, score_generation

Y, X = np.mgrid[:32, :32] - 15.5


def blobs(num=6, channels=1):
    """Ellipses with a gradient inside, on black."""
    rng = np.random.default_rng(0)
    out = np.zeros((num, channels, 32, 32))
    for i in range(num):
        a, b = rng.uniform(5, 12, 2)
        inside = (X / a) ** 2 + (Y / b) ** 2 < 1
        out[i] = inside * (0.6 + 0.01 * X + rng.uniform(0, 0.2, (channels, 32, 32)))
    return out


def test_a_rectangle_has_the_shape_of_a_rectangle():
    image = np.zeros((1, 1, 32, 32))
    image[0, 0, 4:14, 6:26] = 1
    row = measure_cellprofiler(image, mpp=0.5).iloc[0]
    assert row["AreaShape_Area"] == row["AreaShape_BoundingBoxArea"] == 200 * 0.25
    assert row["AreaShape_ConvexArea"] == 50
    assert row["AreaShape_Extent"] == row["AreaShape_Solidity"] == row["AreaShape_EulerNumber"] == 1
    assert row["AreaShape_Perimeter"] == 0.5 * (2 * 9 + 2 * 19)  # between the centres of pixels
    assert row["AreaShape_FormFactor"] == pytest.approx(4 * np.pi * 200 / 56**2)
    assert row["AreaShape_Compactness"] == pytest.approx(56**2 / (4 * np.pi * 200))
    assert row["AreaShape_EquivalentDiameter"] == pytest.approx(0.5 * np.sqrt(4 * 200 / np.pi))
    assert row["AreaShape_MajorAxisLength"] == pytest.approx(0.5 * 20, rel=0.2)
    assert row["AreaShape_MaximumRadius"] == 0.5 * 5  # to the first pixel outside
    second = (20 * 10**3 / 12 + 10 * 20**3 / 12) / 200**2  # of the area, of a rectangle
    assert row["AreaShape_HuMoment_0"] == pytest.approx(second, rel=0.02)


def test_shape_and_grey_values_are_those_of_the_ten():
    images = blobs(channels=2)
    ten = measure_morphology(images, mpp=0.3)
    many = measure_cellprofiler(images, mpp=0.3)
    for ours, theirs in {
        "area_um2": "Area",
        "perimeter_um": "Perimeter",
        "eccentricity": "Eccentricity",
        "solidity": "Solidity",
        "major_axis_um": "MajorAxisLength",
        "minor_axis_um": "MinorAxisLength",
    }.items():
        assert_allclose(many[f"AreaShape_{theirs}"], ten[ours])
    grey = (many["Intensity_MeanIntensity_Ch1"] + many["Intensity_MeanIntensity_Ch2"]) / 2
    assert_allclose(grey, ten["intensity_mean"], rtol=1e-5)
    assert list(many.columns) == cellprofiler_names(["Ch1", "Ch2"])
    assert many.shape[1] == 24 + 2 * 47
    assert many.notna().all(axis=None)


def test_intensities_are_of_the_inside_and_of_its_edge():
    image = np.zeros((1, 1, 32, 32))
    image[0, 0, 8:24, 8:24] = 0.8
    image[0, 0, 9:23, 9:23] = 0.6
    image[0, 0, 16:23, 9:23] = 0.4  # the lower half is darker: the middle of light lies above
    row = measure_cellprofiler(image, mpp=1.0, channels=["DNA"], foreground="bright").iloc[0]
    row.index = row.index.str.removeprefix("Intensity_").str.removesuffix("_DNA")
    assert row["MeanIntensityEdge"] == pytest.approx(0.8)
    assert row["StdIntensityEdge"] == pytest.approx(0, abs=1e-9)
    assert row["IntegratedIntensityEdge"] == pytest.approx(60 * 0.8)
    inside = image[0, 0, 8:24, 8:24].ravel()
    assert row["IntegratedIntensity"] == pytest.approx(inside.sum())
    assert row["MedianIntensity"] == pytest.approx(np.median(inside))
    assert row["MADIntensity"] == pytest.approx(np.median(np.abs(inside - np.median(inside))))
    up = (np.arange(16) * image[0, 0, 8:24, 8:24].sum(1)).sum() / inside.sum() - 7.5
    assert row["MassDisplacement"] == pytest.approx(-up)


def test_textures_are_of_pairs_inside_alone():
    image = np.zeros((1, 1, 32, 32))
    image[0, 0, 8:24, 8:24] = np.where(np.arange(16) % 2, 1.0, 0.5)  # stripes across
    row = measure_cellprofiler(image, mpp=1.0, texture_scale=1, gray_levels=3).iloc[0]
    across, along = (f"Ch1_1_{angle}_3" for angle in ("00", "02"))
    assert row[f"Texture_Contrast_{across}"] == pytest.approx(1)  # levels 1 and 2 of 0, 1, 2
    assert row[f"Texture_Contrast_{along}"] == 0
    assert row[f"Texture_InverseDifferenceMoment_{across}"] == pytest.approx(0.5)
    assert row[f"Texture_AngularSecondMoment_{across}"] == pytest.approx(0.5)
    assert row[f"Texture_Entropy_{across}"] == pytest.approx(1)  # bit
    assert row[f"Texture_Correlation_{across}"] == pytest.approx(-1)
    assert row[f"Texture_Correlation_{along}"] == pytest.approx(1)
    assert row[f"Texture_Variance_{along}"] == pytest.approx(0.25)


def test_grains_are_found_at_their_size():
    spectra = []
    for size in (1, 3, 5):
        image = np.full((1, 1, 32, 32), 0.3)
        for i, j in np.ndindex(3, 3):
            image[0, 0, 4 + 10 * i : 4 + 10 * i + size, 4 + 10 * j : 4 + 10 * j + size] = 0.9
        mask = np.ones((1, 32, 32), bool)
        table = measure_cellprofiler(image, mpp=1.0, foreground="mask", masks=mask)
        spectra.append(table.filter(like="Granularity").to_numpy()[0])
    assert [int(s.argmax()) for s in spectra] == [0, 1, 2]
    assert_allclose(spectra[0][0], 100 * 9 * 0.6 / (1024 * 0.3 + 9 * 0.6))
    assert_allclose(spectra[0][1:], 0, atol=1e-9)


def test_rotating_a_crop_changes_no_shape_and_swaps_directions():
    images = blobs()
    one, other = (measure_cellprofiler(x, mpp=1.0) for x in (images, np.rot90(images, axes=(2, 3))))
    shape = [c for c in one if c.startswith(("AreaShape", "Intensity", "Granularity"))]
    assert_allclose(one[shape], other[shape], rtol=1e-6, atol=1e-9)
    assert_allclose(one["Texture_Contrast_Ch1_3_00_32"], other["Texture_Contrast_Ch1_3_02_32"])


def test_nothing_to_measure_is_nan_and_bad_input_is_refused():
    images = blobs()
    images[2] = 0
    images[3] = 0
    images[3, 0, 5, 5] = 1  # one pixel has no perimeter
    table = measure_cellprofiler(images, mpp=1.0)
    assert table.isna().all(axis=1).tolist() == [False, False, True, True, False, False]
    with pytest.raises(ValueError, match=r"names of 1 channels, got \['a', 'b'\]"):
        measure_cellprofiler(images, mpp=1.0, channels=["a", "b"])
    with pytest.raises(ValueError, match="'gray_levels' of at least 2, got 3 and 1"):
        measure_cellprofiler(images, mpp=1.0, gray_levels=1)
    with pytest.raises(ValueError, match="Expected 'mpp'"):
        extract_features(images, "cellprofiler")


def test_generated_cells_are_scored_by_them():
    """Identity and perfection, as with the ten features."""
    control, target = blobs(12), np.rot90(blobs(12), axes=(2, 3)).copy()
    tags = ["a"] * 6 + ["b"] * 6
    table = score_generation(
        target, target, control, tags, mpp=0.4, measured="cellprofiler", extractors=["cellprofiler"]
    )
    ten = score_generation(target, target, control, tags, mpp=0.4)
    assert table.loc[("generated", "all"), "ks"] == 1
    assert table.loc[("generated", "all"), "wasserstein_correlation"] == pytest.approx(1)
    assert table.loc[("identity", "all"), "ks"] < 1
    assert table.loc[("identity", "all"), "ks"] != ten.loc[("identity", "all"), "ks"]
    assert table["kernel_cellprofiler"].notna().all()
    with pytest.raises(ValueError, match="'measured' among morphology, cellprofiler, got 'x'"):
        score_generation(target, target, control, tags, mpp=0.4, measured="x")


def test_nuclei_of_a_slide_are_measured_in_either_way():
    slide = make_tissue(60, num_genes=10, image="dapi", seed=0)
    crop = Crop(13.6, 32)
    ten = measure_nuclei(slide, crop)
    many = measure_nuclei(slide, crop, features="cellprofiler")
    assert list(many.columns) == cellprofiler_names(["Ch1"])
    assert list(many.index) == list(slide.adata.obs_names)
    assert_allclose(many["AreaShape_Area"], ten["area_um2"])
    with pytest.raises(ValueError, match="'features' morphology or cellprofiler, got 'x'"):
        measure_nuclei(slide, crop, features="x")
