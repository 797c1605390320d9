"""Scales that an AnnData declares: converted, or refused with the argument that mends it."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import spatiagraph as sg
from spatiagraph.data.scale import declared_scale

FACTORS = {"spot_diameter_fullres": 130.0, "tissue_hires_scalef": 0.1, "tissue_lowres_scalef": 0.03}


def spots(kind="hex", pitch=1.0, side=20):
    y, x = np.mgrid[:side, :side].astype(float)
    if kind == "hex":
        x, y = x + 0.5 * (y % 2), y * np.sqrt(3) / 2
    return np.stack([x.ravel(), y.ravel()], 1) * pitch + 4000


def cells(spacing=10.0, side=20, seed=0):
    rng = np.random.default_rng(seed)
    return spots("square", spacing, side) + rng.uniform(-0.35, 0.35, (side**2, 2)) * spacing


def annotated(pos, obs=None, **uns):
    index = [f"c{i}" for i in range(len(pos))]
    counts = np.random.default_rng(0).poisson(3, (len(pos), 8)).astype(np.float32)
    adata = AnnData(counts, obs=pd.DataFrame(obs or {}, index=index))
    adata.var_names = [f"G{i}" for i in range(8)]
    adata.obsm["spatial"] = pos
    adata.uns.update(uns)
    return adata


def library(**factors):
    return {"spatial": {"lib": {"images": {}, "scalefactors": factors}}}


def width(adata, tmp_path, **options):
    adata.write_h5ad(tmp_path / "a.h5ad")
    return float(np.ptp(sg.read(tmp_path / "a.h5ad", **options).pos[:, 0]))


@pytest.mark.parametrize("pitch", [50.0, 137.0, 200.0, 274.0])
@pytest.mark.parametrize("factors", [FACTORS, {"tissue_hires_scalef": 0.2}])
def test_visium_in_pixels_is_read_at_its_size_whatever_the_scan(tmp_path, pitch, factors):
    if "spot_diameter_fullres" in factors:
        factors = {**factors, "spot_diameter_fullres": 0.65 * pitch}
    adata = annotated(spots(pitch=pitch), **library(**factors))
    assert width(adata, tmp_path) == pytest.approx(1950)


def test_visium_that_was_brought_to_um_and_kept_its_scale_factors_stays(tmp_path):
    assert width(annotated(spots(pitch=100.0), **library(**FACTORS)), tmp_path) == pytest.approx(
        1950
    )


@pytest.mark.parametrize("pitch", [25.0, 50.0, 200.0])
def test_hexagonal_pitches_of_square_arrays_are_refused(pitch):
    with pytest.raises(ValueError, match=r"hex lattice .*pitch_um=100"):
        sg.Slide(annotated(spots(pitch=pitch)), slide_id="a")


def test_a_square_array_in_pixels_needs_its_pitch(tmp_path):
    adata = annotated(spots("square", 200.0), **library(**FACTORS | {"spot_diameter_fullres": 100}))
    with pytest.raises(ValueError, match=r"scalefactors.* pixels of unknown size.*pitch_um="):
        width(adata, tmp_path)
    assert width(adata, tmp_path, pitch_um=200) == pytest.approx(3800)


def test_bins_of_visium_hd_follow_their_scale_factors(tmp_path):
    hd = library(bin_size_um=8.0, spot_diameter_fullres=29.0, tissue_hires_scalef=0.1)
    assert width(annotated(spots("square", 29.0), **hd), tmp_path) == pytest.approx(19 * 8)
    hd = library(bin_size_um=8.0, microns_per_pixel=0.5)
    assert width(annotated(spots("square", 16.0), **hd), tmp_path) == pytest.approx(19 * 8)
    assert width(annotated(spots("square", 8.0), **hd), tmp_path) == pytest.approx(19 * 8)


@pytest.mark.parametrize("bins", [20, 50, 100, 200])
@pytest.mark.parametrize("resolution", [500, 715, None])
def test_bins_of_stereo_seq_are_counted_in_spots_of_the_chip(tmp_path, bins, resolution):
    said = {"bin_type": "bins", "bin_size": bins}
    said |= {} if resolution is None else {"resolution": resolution}
    adata = annotated(spots("square", float(bins)), **said)
    found = declared_scale(adata, adata.obsm["spatial"])
    assert found is not None
    assert found.mpp == pytest.approx((resolution or 500) / 1000)


def test_bins_of_stereo_seq_in_um_stay_and_others_are_refused(tmp_path):
    said = {"bin_type": "bins", "bin_size": 50, "resolution": 500}
    assert width(annotated(spots("square", 25.0), **said), tmp_path) == pytest.approx(475)
    with pytest.raises(ValueError, match="bin_size.*mpp="):
        width(annotated(spots("square", 40.0), **said), tmp_path)


def test_cells_of_stereo_seq_in_whole_spots_are_halved(tmp_path):
    adata = annotated(np.rint(cells(20.0)), bin_type="cell_bins", resolution=500)
    assert width(adata, tmp_path) == pytest.approx(190, rel=0.1)


def test_pixel_columns_beside_um_give_the_scale(tmp_path):
    um = cells(10.0)
    px = um / 0.325
    obs = {"x_um": um[:, 0] - 7, "y_um": um[:, 1], "x_px": px[:, 0], "y_px": px[:, 1]}
    assert width(annotated(px, obs), tmp_path) == pytest.approx(np.ptp(um[:, 0]))
    assert width(annotated(um, {"x_um": um[:, 0], "y_um": um[:, 1]}), tmp_path) == pytest.approx(
        np.ptp(um[:, 0])
    )


@pytest.mark.parametrize(
    "names",
    [
        ("CenterX_global_px", "CenterY_global_px"),
        ("x_pixel", "y_pixel"),
        ("imagecol", "imagerow"),
        ("X px", "Y px"),
        ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ],
)
def test_coordinates_that_are_pixel_columns_are_refused_until_scaled(tmp_path, names):
    pos = cells(38.0)
    adata = annotated(pos, dict(zip(names, pos.T, strict=True)))
    with pytest.raises(ValueError, match=r"obs\['.*pixels of unknown size.*mpp="):
        width(adata, tmp_path)
    with pytest.raises(ValueError, match="pixels of unknown size"):
        sg.Slide(adata, slide_id="a")
    assert width(adata, tmp_path, mpp=0.25) == pytest.approx(np.ptp(pos[:, 0]) / 4)
    assert width(adata, tmp_path, assume_um=True) == pytest.approx(np.ptp(pos[:, 0]))


def test_swapped_columns_are_told_of(tmp_path):
    pos = cells(38.0)
    adata = annotated(pos, {"x_pixel": pos[:, 1], "y_pixel": pos[:, 0]})
    with pytest.warns(UserWarning, match=r"obs\['x_pixel'\] and obs\['y_pixel'\].* swapped"):
        assert width(adata, tmp_path, mpp=0.25) == pytest.approx(np.ptp(pos[:, 0]) / 4)


def test_a_named_unit_decides(tmp_path):
    pos = cells(10.0)
    assert width(annotated(pos, spatial_units="um", um_per_px=0.5), tmp_path) == np.ptp(pos[:, 0])
    pixels = annotated(pos / 0.5, spatial_units="pixels", um_per_px=0.5)
    assert width(pixels, tmp_path) == pytest.approx(np.ptp(pos[:, 0]))
    with pytest.raises(ValueError, match="spatial_units.*mpp="):
        width(annotated(pos, spatial_units="px"), tmp_path)
    assert width(annotated(pos / 1000, spatial_units="mm"), tmp_path) == pytest.approx(
        np.ptp(pos[:, 0])
    )


def test_a_size_of_pixels_is_used_where_it_alone_is_plausible(tmp_path):
    pos = cells(10.0)
    assert width(annotated(pos / 0.1, um_per_px=0.1), tmp_path) == pytest.approx(np.ptp(pos[:, 0]))
    assert width(annotated(pos, um_per_px=0.1), tmp_path) == pytest.approx(np.ptp(pos[:, 0]))
    with pytest.raises(ValueError, match=r"Pass mpp=0\.5 if .* mpp=1 if"):
        width(annotated(pos, um_per_px=0.5), tmp_path)


def test_a_slide_refuses_what_read_would_convert_and_takes_what_was_read(tmp_path):
    adata = annotated(spots(pitch=200.0), **library(**FACTORS))
    with pytest.raises(ValueError, match=r"spatiagraph\.read\(adata\)"):
        sg.Slide(adata, slide_id="a")
    adata = annotated(np.rint(cells(20.0)), bin_type="cell_bins", resolution=500)
    adata.write_h5ad(tmp_path / "a.h5ad")
    slide = sg.read(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(sg.Slide(slide.adata, slide_id="b").pos, slide.pos)


def test_whole_numbers_on_a_square_lattice_are_doubted(tmp_path):
    adata = annotated(spots("square", 50.0))
    with pytest.warns(UserWarning, match=r"Stereo-seq, pass mpp=0\.5"):
        width(adata, tmp_path)
    assert width(adata, tmp_path, pitch_um=50) == pytest.approx(950)


@pytest.mark.parametrize(("unit", "um"), [("nanometers", 1e-3), ("millimeter", 1e3), ("cm", 1e4)])
def test_units_by_any_name_are_converted(unit, um):
    slide = sg.read(annotated(cells() / um, spatial_units=unit))
    np.testing.assert_allclose(slide.pos, cells())


def test_a_unit_that_is_none_is_named():
    with pytest.raises(ValueError, match="got 'inch'. Pass mpp=…"):
        sg.read(annotated(cells(), spatial_units="inch"))
    sg.read(annotated(cells(), units="counts"))  # of the values


@pytest.mark.parametrize("names", [("x_um", "y_um"), ("Centroid X µm", "Centroid Y µm")])
def test_coordinates_beside_columns_in_um_are_brought_to_them(names):
    obs = dict(zip(names, cells().T, strict=True))
    np.testing.assert_allclose(sg.read(annotated(cells() / 0.2125, obs)).pos, cells())


def test_coordinates_beside_columns_of_a_maker_are_asked_for_where_both_could_be_um():
    obs = dict(zip(("x_centroid", "y_centroid"), cells().T, strict=True))
    with pytest.raises(ValueError, match=r"x_centroid.*Pass mpp=0\.2125 if they are pixels, mpp=1"):
        sg.read(annotated(cells() / 0.2125, obs))
    np.testing.assert_allclose(sg.read(annotated(cells() / 0.05, obs)).pos, cells())
    sg.read(annotated(cells(), obs))  # the same places


def test_pixel_columns_called_otherwise_are_pixels():
    pos = cells() / 0.65
    obs = {"xcoord_px": pos[:, 0], "ycoord_px": pos[:, 1]}
    with pytest.raises(ValueError, match="xcoord_px.*pixels of unknown size"):
        sg.read(annotated(pos, obs))


@pytest.mark.parametrize("bins", [1, 5, 150])
def test_bins_whose_pitch_no_other_array_has_open_by_their_size(bins):
    slide = sg.read(annotated(spots("square", bins), bin_size=bins, resolution=500))
    assert np.ptp(slide.pos[:, 0]) == pytest.approx(19 * bins / 2)
    slide = sg.read(annotated(spots("square", bins), bin_size=bins))  # no maker is named
    assert np.ptp(slide.pos[:, 0]) == pytest.approx(19 * bins / 2)


@pytest.mark.parametrize("bins", [20, 50, 100, 200])
def test_bins_of_no_named_maker_are_asked_for_where_they_could_be_um(bins):
    adata = annotated(spots("square", bins), bin_size=bins)
    with pytest.raises(ValueError, match=r"mpp=0\.5 if these are bins of Stereo-seq.*mpp=1"):
        sg.read(adata)
    assert np.ptp(sg.read(adata, mpp=1).pos[:, 0]) == pytest.approx(19 * bins)


def test_bins_of_visium_hd_in_um_stay_whatever_their_size_is_called():
    for bins in (2, 8, 16):
        assert np.ptp(sg.read(annotated(spots("square", bins), bin_size=bins)).pos[:, 0]) == (
            pytest.approx(19 * bins)
        )


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("mpp", [0.5, None])
def test_a_slide_in_um_is_not_scaled_once_more(tmp_path, suffix, mpp):
    if suffix == ".zarr":
        pytest.importorskip("spatialdata")
    slide = sg.make_tissue(200, num_genes=20, image=None, seed=0)
    adata = slide.adata.copy()
    adata.obsm["spatial"] = adata.obsm["spatial"] / (mpp or 1.0)
    first = sg.read(adata, mpp=mpp)
    sg.write(first, path := tmp_path / f"a{suffix}")
    earlier = r" with mpp=0\.5" if mpp else ""
    with pytest.raises(ValueError, match=rf"read before{earlier} and .* got mpp=0\.5: leave"):
        sg.read(path, mpp=0.5)
    for again in (sg.read(path), sg.read(path, mpp=1)):
        np.testing.assert_allclose(again.pos, first.pos)
