import gzip
import json
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from anndata import AnnData
from PIL import Image
from scipy.io import mmwrite
from scipy.sparse import csr_matrix

from spatiagraph.data import Slide, SlideImage
from spatiagraph.data.read import read
from spatiagraph.data.units import neighbor_distance
from spatiagraph.data.writing import write

GENES = ["ISG15", "SAMD11", "NOC2L"]
IDS = ["ENSG00000187608", "ENSG00000187634", "ENSG00000188976"]


def counts(num_cells: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(3.0, (num_cells, 3)) + [1, 0, 0]


def cells(num_cells: int = 20, scale: float = 1.0) -> AnnData:
    """Cells about 10 µm apart, with coordinates in units of ``1 / scale`` µm."""
    rng = np.random.default_rng(0)
    adata = AnnData(
        csr_matrix(counts(num_cells), dtype=np.float32),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(num_cells)]),
        var=pd.DataFrame(index=GENES),
    )
    adata.obsm["spatial"] = rng.uniform(0, 20 * np.sqrt(num_cells), (num_cells, 2)) * scale
    return adata


def visium_spots(side: int = 8, px_per_um: float = 1.38) -> pd.DataFrame:
    """Space Ranger's table of spots; every spot is in tissue except the first."""
    row, col = (a.ravel() for a in np.mgrid[:side, :side])
    col = 2 * col + row % 2
    return pd.DataFrame(
        {
            "barcode": [f"B{i}-1" for i in range(len(row))],
            "in_tissue": (np.arange(len(row)) > 0).astype(int),
            "array_row": row,
            "array_col": col,
            "pxl_row_in_fullres": np.rint(row * 50 * np.sqrt(3) * px_per_um + 100).astype(int),
            "pxl_col_in_fullres": np.rint(col * 50 * px_per_um + 100).astype(int),
        }
    )


def write_10x_h5(path, barcodes, values):
    matrix = csr_matrix(values)  # barcodes × features is 10x's features × barcodes in CSC
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for key in ("data", "indices", "indptr"):
            group[key] = getattr(matrix, key)
        group["shape"] = matrix.shape[::-1]
        group.create_dataset("barcodes", data=list(barcodes), dtype=text)
        features = group.create_group("features")
        features.create_dataset("name", data=[*GENES, "NegControlProbe_1"], dtype=text)
        features.create_dataset("id", data=[*IDS, "NegControlProbe_1"], dtype=text)
        types = ["Gene Expression"] * 3 + ["Negative Control Probe"]
        features.create_dataset("feature_type", data=types, dtype=text)


def with_control(values):
    return np.c_[values, np.full(len(values), 7)]


def write_spaceranger(folder, form="h5", positions="tissue_positions.csv", factors=None):
    spots = visium_spots()
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    values = with_control(counts(len(spots)))
    if form == "h5":
        write_10x_h5(folder / "filtered_feature_bc_matrix.h5", spots["barcode"], values)
    else:
        matrix = folder / "raw_feature_bc_matrix"
        matrix.mkdir()
        with gzip.open(matrix / "matrix.mtx.gz", "wb") as stream:
            mmwrite(stream, csr_matrix(values.T))
        spots["barcode"].to_csv(matrix / "barcodes.tsv", index=False, header=False)
        features = pd.DataFrame({"id": [*IDS, "N"], "name": [*GENES, "N"]})
        features["type"] = ["Gene Expression"] * 3 + ["Negative Control Probe"]
        features.to_csv(matrix / "features.tsv", index=False, header=False, sep="\t")
    if positions.endswith("parquet"):
        spots.to_parquet(spatial / positions)
    else:
        spots.to_csv(spatial / positions, index=False, header="list" not in positions)
    factors = {"tissue_lowres_scalef": 0.1, "tissue_hires_scalef": 0.2} | (factors or {})
    (spatial / "scalefactors_json.json").write_text(json.dumps(factors))
    Image.fromarray(np.resize(np.arange(200, dtype=np.uint8), (300, 300, 3))).save(
        spatial / "tissue_hires_image.png"
    )
    return spots


def write_xenium(folder, matrix=True, suffix="parquet", image=True):
    folder.mkdir(exist_ok=True)
    adata = cells()
    (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": 0.2125}))
    row, gene = (a.ravel() for a in np.mgrid[: adata.n_obs, :3])
    many = counts(adata.n_obs).ravel()
    table = pd.DataFrame(
        {
            "cell_id": np.repeat(adata.obs_names.to_numpy()[row], many),
            "feature_name": np.repeat(np.array(GENES)[gene], many),
            "x_location": np.repeat(adata.obsm["spatial"][row, 0], many),
            "y_location": np.repeat(adata.obsm["spatial"][row, 1], many),
            "qv": 40.0,
        }
    )
    noise = pd.DataFrame(
        {
            "cell_id": ["UNASSIGNED", "c0", "c0"],
            "feature_name": ["ISG15", "ISG15", "NegControlProbe_1"],
            "x_location": 1.0,
            "y_location": 1.0,
            "qv": [40.0, 19.9, 40.0],
        }
    )
    table = pd.concat([table, noise], ignore_index=True)
    if suffix == "parquet":
        table.to_parquet(folder / "transcripts.parquet")
    else:
        table.to_csv(folder / f"transcripts.{suffix}")
    if matrix:
        values = with_control(counts(adata.n_obs))
        write_10x_h5(folder / "cell_feature_matrix.h5", adata.obs_names, values)
        at = pd.DataFrame(adata.obsm["spatial"], columns=["x_centroid", "y_centroid"])
        at.insert(0, "cell_id", adata.obs_names)
        at[::-1].to_parquet(folder / "cells.parquet")
    if image:
        tifffile.imwrite(
            folder / "morphology_mip.ome.tif",
            np.resize(np.arange(200, dtype=np.uint16), (500, 500)),
        )
    return adata


# AnnData files ----------------------------------------------------------------------------------


def test_h5ad_in_um_comes_back_as_it_is(tmp_path):
    adata = cells()
    adata.write_h5ad(tmp_path / "a.h5ad")
    slide = read(tmp_path / "a.h5ad", donor="d")
    assert (slide.slide_id, slide.donor) == ("a", "d")
    np.testing.assert_array_equal(slide.pos, adata.obsm["spatial"])
    np.testing.assert_array_equal(slide.counts.toarray(), adata.X.toarray())


def test_mpp_brings_pixels_to_um(tmp_path):
    cells(scale=2.0).write_h5ad(tmp_path / "a.h5ad")
    slide = read(tmp_path / "a.h5ad", mpp=0.5)
    np.testing.assert_allclose(slide.pos, cells().obsm["spatial"])
    assert slide.adata.uns["spatiagraph"]["read"]["mpp"] == 0.5


def test_other_slots_of_coordinates_are_read_when_named(tmp_path):
    adata = cells()
    adata.obsm["xy"] = adata.obsm["spatial"] + 3
    adata.write_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(read(tmp_path / "a.h5ad", spatial_key="xy").pos, adata.obsm["xy"])


def spots_h5ad(path, uns=None):
    spots = visium_spots()
    adata = cells(len(spots))
    adata.obsm["spatial"] = spots[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(float)
    adata.uns.update(uns or {})
    adata.write_h5ad(path)
    return adata


def test_pitch_brings_spots_to_um(tmp_path):
    spots_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="Pixels.*pitch_um=100"):
        read(tmp_path / "a.h5ad")
    slide = read(tmp_path / "a.h5ad", pitch_um=100)
    assert neighbor_distance(slide.pos) == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize(
    ("uns", "kwargs", "mpp", "origin"),
    [
        ({}, {"mpp": 0.5}, 0.5, (0, 0)),
        ({}, {"image_mpp": 0.25, "origin_um": (-3, -4)}, 0.25, (-3, -4)),
        ({}, {"mpp": 0.5, "image_mpp": 2.0}, 2.0, (0, 0)),
        ({"image": {"file": "i.png", "scale": 0.25}}, {"mpp": 0.5}, 2.0, (0, 0)),
        (
            {"image": {"file": "i.png", "scale": 0.25}},
            {"mpp": 0.5, "image_mpp": 1.95},
            1.95,
            (0, 0),
        ),
        ({"image": {"file": "other.png", "scale": 0.25}}, {"mpp": 0.5}, 0.5, (0, 0)),
        (
            {"image": {"pixel_size_um": 0.4, "origin_x_um": -1.0, "origin_y_um": -2.0}},
            {},
            0.4,
            (-1, -2),
        ),
    ],
)
def test_image_scale_comes_from_the_argument_then_the_file_then_mpp(
    tmp_path, uns, kwargs, mpp, origin
):
    adata = cells(scale=1 / kwargs.get("mpp", 1.0))
    adata.uns.update(uns)
    adata.write_h5ad(tmp_path / "a.h5ad")
    Image.fromarray(np.resize(np.arange(200, dtype=np.uint8), (500, 500))).save(tmp_path / "i.png")
    slide = read(tmp_path / "a.h5ad", image=tmp_path / "i.png", **kwargs)
    assert slide.image.mpp == pytest.approx(mpp)
    assert slide.image.origin_um == origin


def scanpy_layout(pixels=100):
    images = {
        "hires": np.full((pixels * 2, pixels * 2, 3), 0.5),
        "lowres": np.full((pixels,) * 2, 0.5),
    }
    factors = {
        "tissue_hires_scalef": 0.1,
        "tissue_lowres_scalef": 0.05,
        "spot_diameter_fullres": 90.0,
    }
    return {"spatial": {"lib": {"images": images, "scalefactors": factors}}}


def test_the_finest_image_inside_of_the_file_is_used(tmp_path):
    spots_h5ad(tmp_path / "a.h5ad", scanpy_layout())
    slide = read(tmp_path / "a.h5ad", mpp=1 / 1.38)
    assert slide.image.mpp == pytest.approx(10 / 1.38)
    assert slide.image.num_channels == 3
    assert read(tmp_path / "a.h5ad", mpp=1 / 1.38, image=False).image is None
    factors = slide.adata.uns["spatial"]["lib"]["scalefactors"]
    assert factors["tissue_hires_scalef"] == pytest.approx(0.1 * 1.38)  # now per µm
    assert factors["spot_diameter_fullres"] == pytest.approx(90 / 1.38)


def test_a_hires_or_lowres_file_has_the_scale_of_its_factor(tmp_path):
    spots_h5ad(tmp_path / "a.h5ad", scanpy_layout())
    Image.fromarray(np.resize(np.arange(200, dtype=np.uint8), (100, 100))).save(
        tmp_path / "tissue_lowres_image.png"
    )
    slide = read(tmp_path / "a.h5ad", mpp=1 / 1.38, image=tmp_path / "tissue_lowres_image.png")
    assert slide.image.mpp == pytest.approx(20 / 1.38)


def test_an_image_inside_of_the_file_without_scale_is_left_out_with_a_warning(tmp_path):
    adata = cells()
    adata.uns.update(scanpy_layout())
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.warns(UserWarning, match="scale is not known. Pass mpp="):
        assert read(tmp_path / "a.h5ad").image is None


def test_molecules_can_go_with_an_h5ad(tmp_path):
    write_xenium(tmp_path / "x")
    cells().write_h5ad(tmp_path / "a.h5ad")
    table = tmp_path / "x" / "transcripts.parquet"
    slide = read(tmp_path / "a.h5ad", transcripts=table)
    assert {"x_um", "y_um", "gene", "cell_id", "qv"} <= set(slide.transcripts)
    slide.adata.write_h5ad(tmp_path / "again.h5ad")  # which knows itself that it is in µm
    assert read(tmp_path / "again.h5ad", transcripts=table).transcripts.equals(slide.transcripts)


def test_cells_without_counts_are_refused_or_dropped_with_a_warning(tmp_path):
    adata = cells()
    adata.X = csr_matrix(adata.X.toarray() * (np.arange(20) > 1)[:, None])
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(
        ValueError, match="none in 2 of 20 cells: row 0 'c0', row 1 'c1'. Pass drop"
    ):
        read(tmp_path / "a.h5ad")
    with pytest.warns(UserWarning, match="Dropped 2 of 20 cells of 'a'"):
        slide = read(tmp_path / "a.h5ad", drop_empty=True)
    assert slide.adata.obs_names[0] == "c2"
    adata.X = csr_matrix(adata.shape, dtype=np.float32)
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="got none in all 20 cells"):
        read(tmp_path / "a.h5ad", drop_empty=True)


def test_duplicate_ids_in_a_file_give_the_error_and_no_other_noise(tmp_path):
    adata = cells()
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        names = file["obs/_index"]
        (names["values"] if isinstance(names, h5py.Group) else names)[3] = "c0"  # anndata 0.13
    for drop in (False, True):
        with pytest.raises(ValueError, match="unique cell ids, got 2 of 20"):
            read(tmp_path / "a.h5ad", drop_empty=drop)


def test_broken_coordinates_are_found_before_the_scale(tmp_path):
    adata = cells()
    adata.obsm["spatial"][4] = np.nan
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="NaN or infinity for 1 of 20 cells: row 4 'c4'"):
        read(tmp_path / "a.h5ad", pitch_um=100)


def no_coordinates(path):
    adata = cells()
    adata.obsm["spatial_px"] = adata.obsm.pop("spatial")
    adata.write_h5ad(path)


def not_hdf5(path):
    path.write_text("cell,x,y\n")


def truncated(path):
    cells().write_h5ad(path)
    path.write_bytes(path.read_bytes()[:5000])


def fewer_coordinates(path):
    cells().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        attributes = dict(file["obsm/spatial"].attrs)
        del file["obsm/spatial"]
        file["obsm/spatial"] = np.zeros((3, 2))
        file["obsm/spatial"].attrs.update(attributes)


def other_hdf5(path):
    with h5py.File(path, "w") as file:
        file["table"] = 1


def tenx_hdf5(path):
    write_10x_h5(path, ["a"], [[1, 2, 3, 4]])


def no_cells(path):
    cells()[:0].copy().write_h5ad(path)


def pixels(path):
    cells(scale=30.0).write_h5ad(path)


def fractions(path):
    adata = cells()
    adata.X = adata.X.log1p()
    adata.write_h5ad(path)


def negatives(path):
    adata = cells()
    adata.X[1, 0] = -2
    adata.write_h5ad(path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (no_coordinates, r"obsm\['spatial'\], got none. Nearest: 'spatial_px'.*spatial_key="),
        (not_hdf5, "a.h5ad, which is not HDF5"),
        (truncated, "readable HDF5 file, got a.h5ad|not HDF5 or is damaged"),
        (fewer_coordinates, r"length 20 in a\.h5ad: obsm/spatial, got shape \[3, 2\]"),
        (other_hdf5, "no AnnData and table instead"),
        (tenx_hdf5, "10x feature matrix: pass the folder"),
        (no_cells, "got 0 cells × 3 genes"),
        (pixels, r"neighbour distance is \d+.*Pixels.*mpp="),
        (fractions, 'fractional values .*log.*expression="normalized"'),
        (negatives, "negative values in row 1 'c1'"),
    ],
)
def test_bad_files_are_refused_in_one_clear_line(tmp_path, write, message):
    write(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / "a.h5ad")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"mpp": 0.5, "pitch_um": 100}, ValueError, "either mpp or pitch_um"),
        ({"mpp": -1.0}, ValueError, "positive µm per unit, got -1"),
        ({"pitch_um": 0.0}, ValueError, "'pitch_um' to be positive µm, got 0"),
        ({"image_mpp": 0.0}, ValueError, "'image_mpp' to be positive µm per pixel, got 0"),
        ({"pitch_um": 100}, ValueError, "20 irregular points"),
        ({"image": "missing.png"}, FileNotFoundError, "missing.png, found no such file"),
        ({"image": "i.png"}, ValueError, "pixel size of i.png, got none: pass image_mpp="),
        ({"image": "broken.png", "image_mpp": 1.0}, ValueError, "broken.png"),
        ({"image": "i.png", "image_mpp": 0.01}, ValueError, "image that covers the cells, got 20"),
        ({"image": "bare.tif"}, ValueError, "image_mpp="),
        ({"image": True}, ValueError, "Pass its file"),
        ({"transcripts": "missing.parquet"}, FileNotFoundError, "missing.parquet"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, monkeypatch, kwargs, error, message):
    monkeypatch.chdir(tmp_path)
    cells().write_h5ad("a.h5ad")
    Image.fromarray(np.resize(np.arange(200, dtype=np.uint8), (50, 50))).save("i.png")
    tifffile.imwrite("bare.tif", np.resize(np.arange(200, dtype=np.uint8), (500, 500)))
    (tmp_path / "broken.png").write_bytes((tmp_path / "i.png").read_bytes()[:60])
    with pytest.raises(error, match=message):
        read("a.h5ad", **kwargs)


# Folders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["h5", "mtx"])
@pytest.mark.parametrize(
    "positions", ["tissue_positions.csv", "tissue_positions_list.csv", "tissue_positions.parquet"]
)
def test_spaceranger_folders_of_all_ages_open(tmp_path, form, positions):
    spots = write_spaceranger(tmp_path / "s" / "outs", form, positions)
    slide = read(tmp_path / "s")
    assert slide.slide_id == "s"
    assert slide.adata.obs_names.tolist() == spots["barcode"].tolist()[1:]  # those in tissue
    np.testing.assert_array_equal(slide.counts.toarray(), counts(len(spots))[1:])
    assert (slide.symbols, slide.gene_ids) == (GENES, IDS)
    assert neighbor_distance(slide.pos) == pytest.approx(100, rel=0.01)
    want = spots[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy()[1:] / 1.38
    np.testing.assert_allclose(slide.pos, want, rtol=2e-3)
    assert slide.image.mpp == pytest.approx(1 / 1.38 / 0.2, rel=2e-3)
    assert slide.image.covers(slide.pos).all()


def test_scale_written_by_spaceranger_wins_and_that_of_the_user_over_it(tmp_path):
    write_spaceranger(tmp_path / "s", factors={"microns_per_pixel": 0.75})
    assert read(tmp_path / "s").adata.uns["spatiagraph"]["read"]["mpp"] == 0.75
    assert read(tmp_path / "s", mpp=0.7).adata.uns["spatiagraph"]["read"]["mpp"] == 0.7


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("filtered_feature_bc_matrix.h5", "filtered_feature_bc_matrix or raw_feature_bc_matrix"),
        ("spatial/tissue_positions.csv", "one of tissue_positions.parquet, tissue_positions.csv"),
    ],
)
def test_spaceranger_folder_without_a_part_is_refused_naming_it(tmp_path, missing, message):
    write_spaceranger(tmp_path / "s")
    (tmp_path / "s" / missing).unlink()
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "s")


def test_spaceranger_parts_of_different_slides_are_refused(tmp_path):
    write_spaceranger(tmp_path / "s")
    write_10x_h5(tmp_path / "s" / "filtered_feature_bc_matrix.h5", ["X-1"], [[1, 2, 3, 4]])
    with pytest.raises(ValueError, match=r"tissue_positions\.csv, got none for 1 of 1: 'X-1'"):
        read(tmp_path / "s")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mpp": 0.5, "pitch_um": 100}, "either mpp or pitch_um"),
        ({"pitch_um": -5.0}, "positive µm, got -5"),
        ({"image_mpp": -1.0}, "positive µm per pixel, got -1"),
        ({"transcripts": "molecules.csv"}, "transcripts=molecules.csv with an .h5ad, got the fold"),
    ],
)
def test_arguments_that_a_folder_would_not_heed_are_refused(tmp_path, kwargs, message):
    write_spaceranger(tmp_path / "s")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "s", **kwargs)


def test_the_scale_of_the_image_in_a_folder_can_be_overridden(tmp_path):
    write_spaceranger(tmp_path / "s")
    assert read(tmp_path / "s", image_mpp=3.7).image.mpp == 3.7


@pytest.mark.parametrize("matrix", [True, False])
@pytest.mark.parametrize("suffix", ["parquet", "csv", "csv.gz"])
def test_xenium_counts_are_the_same_from_matrix_and_from_molecules(tmp_path, matrix, suffix):
    adata = write_xenium(tmp_path / "x", matrix, suffix)
    slide = read(tmp_path / "x")
    part = slide.adata[adata.obs_names, GENES]
    assert slide.num_genes == 3  # no controls
    np.testing.assert_array_equal(part.X.toarray(), adata.X.toarray())
    np.testing.assert_allclose(part.obsm["spatial"], adata.obsm["spatial"])
    assert slide.image.mpp == 0.2125
    assert len(slide.transcripts) == adata.X.sum() + 3
    assert slide.transcripts["cell_id"].isna().sum() == 1
    assert read(tmp_path / "x", transcripts=False).transcripts is None


def test_xenium_cells_lie_at_the_centroid_of_their_outline(tmp_path):
    adata = write_xenium(tmp_path / "x", matrix=False)
    corners = np.array([[0.0, 0], [6, 0], [6, 6], [3, 6], [3, 3], [0, 3], [0, 0]])  # L shape
    table = pd.DataFrame(corners + 100, columns=["vertex_x", "vertex_y"]).assign(cell_id="c0")
    table.to_csv(tmp_path / "x" / "cell_boundaries.csv", index=False)
    slide = read(tmp_path / "x")[["c0", "c1"]]
    np.testing.assert_allclose(slide.pos[0], [103.5, 102.5])  # (9 · 1.5 + 18 · 4.5) / 27, …
    np.testing.assert_allclose(slide.pos[1], adata.obsm["spatial"][1])  # without outline


def test_xenium_folder_without_counts_is_refused_naming_the_files(tmp_path):
    (tmp_path / "experiment.xenium").write_text("{}")
    with pytest.raises(ValueError, match="cell_feature_matrix .* or transcripts .* found neither"):
        read(tmp_path)


def cut(file):
    def damage(folder):
        whole = (folder / file).read_bytes()
        (folder / file).write_bytes(whole[: len(whole) // 2])

    return damage


def fill(file, text):
    return lambda folder: (folder / file).write_text(text)


def forget_dataset(name):
    def damage(folder):
        with h5py.File(folder / "cell_feature_matrix.h5", "r+") as file:
            del file[name]

    return damage


def overwrite_the_middle(file):
    """Damage a gzip stream where its end is still whole."""

    def damage(folder):
        whole = gzip.compress((folder / file).read_bytes())
        (folder / file).unlink()
        half = len(whole) // 2
        noise = bytes(b ^ 0x5A for b in whole[half : half + 40])
        (folder / f"{file}.gz").write_bytes(whole[:half] + noise + whole[half + 40 :])

    return damage


def change(file, **columns):
    """Set columns of a table in its first row."""

    def damage(folder):
        csv = file.endswith(".csv")
        table = pd.read_csv(folder / file) if csv else pd.read_parquet(folder / file)
        for name, value in columns.items():
            table[name] = table[name].astype(object)
            table.loc[0, name] = value
            if not csv and isinstance(value, str):
                table[name] = table[name].astype(str)
        if csv:
            table.to_csv(folder / file, index=False)
        else:
            table.to_parquet(folder / file)

    return damage


def without_cells(damage):
    """The folder of an instrument whose table of cells is lost: molecules are counted."""

    def both(folder):
        (folder / "cells.parquet").unlink()
        damage(folder)

    return both


def forget_cells(folder):
    cells = pd.read_parquet(folder / "cells.parquet")
    cells.iloc[2:].to_parquet(folder / "cells.parquet")


def forget_column(folder):
    cells = pd.read_parquet(folder / "cells.parquet")
    cells.drop(columns="y_centroid").to_parquet(folder / "cells.parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (fill("experiment.xenium", "{'pixel_size'"), "JSON in '.*experiment.xenium'"),
        (fill("experiment.xenium", "[0.2125]"), "JSON object in experiment.xenium, got .0.2125"),
        (cut("cells.parquet"), "readable table, got cells.parquet"),
        (cut("transcripts.parquet"), "readable table, got transcripts.parquet"),
        (
            fill("cell_feature_matrix.h5", "no HDF5"),
            "got cell_feature_matrix.h5, which is not HDF5",
        ),
        (forget_cells, "in cells.parquet, got none for 2 of 20: 'c18', 'c19'"),
        (forget_column, "in cells.parquet, got no y_centroid"),
        (cut("cell_feature_matrix.h5"), "got cell_feature_matrix.h5: .*truncated"),
        (forget_dataset("matrix/indptr"), "Expected 'indptr' in cell_feature_matrix.h5"),
        (forget_dataset("matrix/features"), "Expected 'features' in cell_feature_matrix.h5"),
        (change("cells.parquet", x_centroid="left"), "'x_centroid' of cells.parquet, got 'left'"),
        (change("transcripts.parquet", x_location="left"), "'x_location' of transcripts.parquet"),
        (change("transcripts.parquet", qv="good"), "'qv' of transcripts.parquet, got 'good' in"),
        (change("transcripts.parquet", feature_name=None), "gene for each molecule .* in 1 rows"),
        (fill("experiment.xenium", '{"pixel_size": "0.2"}'), "'pixel_size' in experiment.xenium"),
        (
            without_cells(fill("cell_boundaries.csv", "cell,vertex_x,vertex_y\nc0,1,1\n")),
            "in cell_boundaries.csv, got no cell_id",
        ),
    ],
)
def test_damaged_xenium_folders_are_refused_naming_the_file(tmp_path, damage, message):
    write_xenium(tmp_path / "x")
    damage(tmp_path / "x")
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("form", "damage", "message"),
    [
        ("h5", fill("spatial/scalefactors_json.json", "{"), "JSON in '.*scalefactors_json.json'"),
        ("h5", fill("spatial/tissue_positions.csv", "a,b\n1,2\n"), "6 columns .* got 2"),
        ("h5", fill("spatial/tissue_positions.csv", ""), "readable table, got tissue_positions"),
        ("h5", fill("spatial/tissue_positions.csv", "barcode,x\nA,1\n"), "got no in_tissue"),
        (
            "mtx",
            fill("raw_feature_bc_matrix/barcodes.tsv", "A\nB\n"),
            r"shape \[2, 4\] .* got \[64",
        ),
        ("mtx", cut("raw_feature_bc_matrix/matrix.mtx.gz"), "Market file, got matrix.mtx.gz"),
        (
            "mtx",
            overwrite_the_middle("raw_feature_bc_matrix/barcodes.tsv"),
            "readable table, got barcodes.tsv.gz",
        ),
        ("mtx", fill("raw_feature_bc_matrix/features.tsv", "A\nB\nC\nD\n"), "features.tsv, got on"),
        (
            "mtx",
            change("spatial/tissue_positions.csv", barcode="B1-1"),
            "got several for 1: 'B1-1'",
        ),
        (
            "h5",
            change("spatial/tissue_positions.csv", pxl_row_in_fullres=np.nan),
            "NaN or infinity for 1 of 64 cells: row 0 'B0-1'",
        ),
        (
            "h5",
            change("spatial/tissue_positions.csv", pxl_row_in_fullres="left"),
            "'pxl_row_in_fullres' of tissue_positions.csv, got 'left' in row B0-1",
        ),
        (
            "h5",
            fill("spatial/scalefactors_json.json", '{"tissue_hires_scalef": 0}'),
            "'tissue_hires_scalef' in scalefactors_json.json to be a positive number, got 0",
        ),
    ],
)
def test_damaged_spaceranger_folders_are_refused_naming_the_file(tmp_path, form, damage, message):
    write_spaceranger(tmp_path / "s", form)
    damage(tmp_path / "s")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "s")


def test_a_spot_or_barcode_that_is_there_twice_is_refused(tmp_path):
    spots = write_spaceranger(tmp_path / "s")
    twice = pd.concat([spots, spots[3:4]])
    twice.to_csv(tmp_path / "s/spatial/tissue_positions.csv", index=False)
    with pytest.raises(ValueError, match=r"tissue_positions\.csv, got several for 1: 'B3-1'"):
        read(tmp_path / "s")
    values = with_control(counts(2))
    write_10x_h5(tmp_path / "s/filtered_feature_bc_matrix.h5", ["B3-1", "B3-1"], values)
    with pytest.raises(ValueError, match="unique barcodes in filtered_feature_bc_matrix.h5, got 2"):
        read(tmp_path / "s")


def test_genes_may_be_called_na(tmp_path):
    write_spaceranger(tmp_path / "s", "mtx")
    table = "E1\tNA\tGene Expression\nE2\tnan\tGene Expression\n"
    table += "E3\tNULL\tGene Expression\nN\tN\tNegative Control Probe\n"
    (tmp_path / "s/raw_feature_bc_matrix/features.tsv").write_text(table)
    assert read(tmp_path / "s").symbols == ["NA", "nan", "NULL"]


def test_molecules_are_counted_where_the_table_of_cells_is_lost(tmp_path):
    write_xenium(tmp_path / "x")
    (tmp_path / "x" / "cells.parquet").unlink()
    slide = read(tmp_path / "x", transcripts=False)
    assert slide.num_cells == 20
    assert slide.transcripts is None


def test_controls_of_a_matrix_are_counted_apart(tmp_path):
    write_xenium(tmp_path / "x")
    slide = read(tmp_path / "x")
    assert slide.symbols == GENES
    assert slide.adata.obs["control_counts"].eq(7).all()
    assert slide.adata.uns["spatiagraph"]["read"]["controls"] == 1


def test_xenium_is_in_um_already(tmp_path):
    write_xenium(tmp_path / "x")
    with pytest.raises(ValueError, match="no mpp or pitch_um"):
        read(tmp_path / "x", mpp=0.5)


def test_a_missing_path_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"\.h5ad file, .*Xenium.* found nothing at .*nope"):
        read(tmp_path / "nope.h5ad")


def test_files_and_folders_of_unknown_kind_say_what_was_looked_for(tmp_path):
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(ValueError, match="Expected an .h5ad file, .* got the file a.doc"):
        read(tmp_path / "a.doc")
    with pytest.raises(ValueError, match=r"folder of Space Ranger .* with a\.doc"):
        read(tmp_path)


def test_a_folder_of_slides_lists_them(tmp_path):
    write_spaceranger(tmp_path / "two")
    cells().write_h5ad(tmp_path / "one.h5ad")
    with pytest.raises(ValueError, match="with one.h5ad, two. Pass one"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["scalefactors_json.json", "spots.csv"], "spots but no counts: filtered_feature"),
        (["my_transcripts.csv"], "of no vendor that is known.*counts_from_transcripts"),
        (["notes.txt"], "with notes.txt. Pass the folder or file that holds counts"),
    ],
)
def test_folders_that_are_no_slide_say_what_to_do(tmp_path, files, message):
    for file in files:
        (tmp_path / file).write_text("gene,x\nA,1\n")
    with pytest.raises(ValueError, match=message):
        read(tmp_path)


# SpatialData ------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    """Write a store: cells in pixels of 0.5 µm, an image at a quarter of these pixels."""
    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Affine, Scale, Sequence, Translation

    def write(with_obsm=True, turned=False, table=True):
        adata = cells(scale=2.0)
        pos = adata.obsm["spatial"]
        index = np.arange(adata.n_obs)
        adata.obs["region"] = pd.Categorical(["cells"] * adata.n_obs)
        adata.obs["id"] = index
        if not with_obsm:
            del adata.obsm["spatial"]
        to_global = Scale([10.0, 10.0], axes=("x", "y"))
        shapes = ShapesModel.parse(
            pos, geometry=0, radius=3.0, index=index, transformations={"global": to_global}
        )
        quarter = Sequence([Scale([4.0, 4.0], ("x", "y")), Translation([-8.0, -4.0], ("x", "y"))])
        if turned:
            quarter = Affine([[0, -4, 0], [4, 0, 0], [0, 0, 1]], ("x", "y"), ("x", "y"))
        image = Image2DModel.parse(
            np.resize(np.arange(200, dtype=np.uint8), (4, 80, 80)),
            dims=("c", "y", "x"),
            c_coords=list("rgba"),
            scale_factors=[2],
            transformations={"global": Sequence([quarter, to_global])},
        )
        tables = {}
        if table:
            tables["table"] = TableModel.parse(
                adata, region="cells", region_key="region", instance_key="id"
            )
        sdata = spatialdata.SpatialData(
            images={"he": image}, shapes={"cells": shapes}, tables=tables
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sdata.write(tmp_path / "s.zarr")
        return tmp_path / "s.zarr"

    return write


@pytest.fixture
def two_regions(tmp_path):
    """A store whose table annotates the shapes of two sections, each with an image of its own."""
    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    parts, shapes, images = [], {}, {}
    for number, name in enumerate(("left", "right")):
        adata = cells()
        pos = adata.obsm.pop("spatial") + 30 * number
        adata.obs_names = [f"{name}-{i}" for i in range(adata.n_obs)]
        adata.obs["region"], adata.obs["id"] = name, np.arange(adata.n_obs)
        adata.obs["patient"] = f"P{number}"
        parts.append(adata)
        place = {name: Identity()}  # a coordinate system for each section
        shapes[name] = ShapesModel.parse(
            pos, geometry=0, radius=3.0, index=adata.obs["id"].to_numpy(), transformations=place
        )
        pixels = np.resize(np.arange(200, dtype=np.uint8) + 50 * number, (1, 99 + number, 99))
        images[f"{name}_dapi"] = Image2DModel.parse(
            pixels, dims=("c", "y", "x"), transformations={name: Scale([4.0, 4.0], ("x", "y"))}
        )
    table = anndata.concat(parts)
    table.obs["region"] = table.obs["region"].astype("category")
    table = TableModel.parse(
        table, region=["left", "right"], region_key="region", instance_key="id"
    )
    sdata = spatialdata.SpatialData(images=images, shapes=shapes, tables={"table": table})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(tmp_path / "two.zarr")
    return tmp_path / "two.zarr"


@pytest.mark.parametrize(
    ("key", "names"), [("region", ["left", "right"]), ("patient", ["P0", "P1"])]
)
def test_regions_of_a_spatialdata_table_are_read_one_by_one(two_regions, tmp_path, key, names):
    with pytest.raises(ValueError, match="2 regions: 'left', 'right'. Pass sample_key='region'"):
        read(two_regions)
    slides = read(two_regions, sample_key=key)
    assert [slide.slide_id for slide in slides] == names
    for number, slide in enumerate(slides):
        np.testing.assert_allclose(slide.pos, cells().obsm["spatial"] + 30 * number)
        assert slide.image.shape == (99 + number, 99, 1)
        assert slide.adata.uns["spatialdata_attrs"]["region"] == ("left", "right")[number]
        again = read(write(slide, tmp_path / f"{number}.h5ad"))
        np.testing.assert_allclose(again.pos, slide.pos)


def test_regions_that_a_column_does_not_tell_apart_are_refused(two_regions):
    spatialdata = pytest.importorskip("spatialdata")
    sdata = spatialdata.read_zarr(two_regions)
    sdata.tables["table"].obs["all"] = "one"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(two_regions.parent / "one.zarr")
    with pytest.raises(ValueError, match="one element of the store for section 'one'"):
        read(two_regions.parent / "one.zarr", sample_key="all")


@pytest.mark.parametrize("with_obsm", [True, False])
def test_spatialdata_cells_and_image_share_one_place(store, with_obsm):
    slide = read(store(with_obsm), mpp=0.5)
    assert slide.slide_id == "s"
    np.testing.assert_allclose(slide.pos, cells().obsm["spatial"])
    np.testing.assert_array_equal(slide.counts.toarray(), cells().X.toarray())
    assert slide.image.mpp == pytest.approx(2.0)
    assert slide.image.origin_um == pytest.approx((-4.0, -2.0))
    assert slide.image.num_channels == 3  # alpha is no stain


def test_spatialdata_molecules_name_cells_as_the_table_does(tmp_path):
    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.models import PointsModel, ShapesModel, TableModel

    adata = cells(4)
    adata.obs["region"] = pd.Categorical(["cells"] * 4)
    adata.obs["cell_id"] = ["aaaa-1", "bbbb-1", "cccc-1", "dddd-1"]
    pos = adata.obsm["spatial"]
    molecules = pd.DataFrame(pos[[0, 1, 1, 2, 3]], columns=["x", "y"])
    molecules["cell_id"] = ["aaaa-1", "bbbb-1", "UNASSIGNED", "0", "zzzz-1"]
    molecules["feature_name"] = pd.Categorical(["ISG15"] * 5)
    sdata = spatialdata.SpatialData(
        points={
            "transcripts": PointsModel.parse(
                molecules,
                coordinates={"x": "x", "y": "y"},
                feature_key="feature_name",
                instance_key="cell_id",
            )
        },
        shapes={
            "cells": ShapesModel.parse(pos, geometry=0, radius=1.0, index=adata.obs["cell_id"])
        },
        tables={
            "table": TableModel.parse(
                adata, region="cells", region_key="region", instance_key="cell_id"
            )
        },
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sdata.write(tmp_path / "s.zarr")
    slide = read(tmp_path / "s.zarr")
    named = slide.transcripts["cell_id"]
    assert named[[0, 1, 4]].tolist() == ["c0", "c1", "zzzz-1"]  # the last is not in the table
    assert named.isna().tolist() == [False, False, True, True, False]
    assert len(slide[["c0", "c1"]].transcripts) == 2


def test_spatialdata_image_that_is_turned_is_refused_or_left_out(store):
    path = store(turned=True)
    with pytest.raises(ValueError, match="rotation, reflection or shear.*image=False"):
        read(path, mpp=0.5)
    assert read(path, mpp=0.5, image=False).image is None
    with pytest.raises(ValueError, match="'image' to name an image .* got 'dapi'.*'he'"):
        read(path, mpp=0.5, image="dapi")


def test_a_given_scale_far_from_that_of_the_store_is_said(store):
    with pytest.warns(UserWarning, match="Image 'he' of the store says .* are 2 µm, .* be 4 µm"):
        read(store(), mpp=0.5, image_mpp=4.0)


def test_spatialdata_without_table_is_refused_saying_what_is_there(store):
    with pytest.raises(ValueError, match="table of counts in s.zarr.*'he'.*'cells'"):
        read(store(table=False))


def test_a_damaged_chunk_of_a_store_is_refused_with_its_name(store):
    path = store()
    for chunk in (path / "tables/table/X/data/c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:10])
    with pytest.raises(ValueError, match=r"SpatialData store, got s\.zarr: "):
        read(path)


def test_a_zarr_that_is_no_spatialdata_is_refused(tmp_path):
    pytest.importorskip("spatialdata")
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(ValueError, match="a.zarr"):
        read(tmp_path / "a.zarr")


# Real slides ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.* channels of the image of .* show next to nothing")
@pytest.mark.parametrize(
    ("name", "kwargs", "shape"),
    [
        ("her2st/C1.h5ad", {"pitch_um": 200}, (176, 15557)),
        ("dlpfc_151510/151510.h5ad", {"pitch_um": 100}, (4634, 500)),
        ("starmap_by3/starmap_by3.h5ad", {"mpp": 0.1}, (1549, 1020)),
        ("st_mob/MOB2.h5ad", {"pitch_um": 200}, (407, 1000)),
        ("vendor_folders/visium_spaceranger_1.0.0", {}, (100, 100)),
        ("vendor_folders/visium_spe_mousebrain/section1", {}, (22, 50)),
        ("vendor_folders/xenium_V1_FF_Mouse_Brain/sample1", {}, (7, 124)),
        ("vendor_folders/xenium_V1_FF_Mouse_Brain/sample2", {}, (9, 122)),
        ("vendor_folders/xenium_lung_10k_transcripts", {}, (164, 337)),
    ],
)
def test_real_slides_open(real_data, name, kwargs, shape):
    slide = read(real_data / name, **kwargs)
    assert (slide.num_cells, slide.num_genes) == shape
    if slide.image is not None:
        assert slide.image.covers(slide.pos).all()


def test_barcodes_without_a_place_are_dropped_with_a_warning(real_data):
    folder = real_data / "vendor_folders/visium_spe_mousebrain/section2"
    with pytest.warns(UserWarning, match=r"Dropped 1 of 50 cells .* no place .*: 'AAACAACGAATAGTT"):
        assert read(folder).num_cells == 22


def test_her2st_image_is_registered_although_it_is_downscaled(real_data):
    slide = read(real_data / "her2st/A1.h5ad", image=real_data / "her2st/A1_HE.jpg", pitch_um=200)
    in_jpg = anndata.read_h5ad(real_data / "her2st/A1.h5ad").obsm["spatial_px"]
    np.testing.assert_allclose(slide.pos / slide.image.mpp, in_jpg, rtol=1e-4)
    assert slide.image.covers(slide.pos).all()


def test_xenium_crop_has_the_counts_of_its_own_molecules(real_data):
    folder = real_data / "xenium_breast_crop"
    cropped = read(folder / "cells.h5ad", image=folder / "morphology_mip.tif")
    assert (cropped.image.mpp, cropped.image.origin_um) == (0.2125, (1062.5, 212.5))
    assert cropped.image.covers(cropped.pos).mean() > 0.99
    counted = read(folder).adata[cropped.adata.obs_names, cropped.symbols]
    np.testing.assert_array_equal(counted.X.toarray(), cropped.counts.toarray())


def test_volume_normalised_merfish_is_refused_as_counts_only(real_data):
    path = real_data / "merfish_mpoa/merfish_mpoa.h5ad"
    with pytest.raises(ValueError, match='normalised.*expression="normalized"'):
        read(path)
    assert read(path, expression="normalized").num_cells == 6509


def test_scaled_protein_intensities_are_refused(real_data):
    with pytest.raises(ValueError, match="negative values"):
        read(real_data / "mibitof_crc/mibitof.h5ad")


def test_merfish_cells_without_counts_are_named(real_data):
    path = real_data / "merfish_visp/merfish_visp.h5ad"
    with pytest.raises(ValueError, match="none in 13 of 2389 cells: row 399 'cell_399'"):
        read(path)
    with pytest.warns(UserWarning, match="Dropped 13 of 2389"):
        assert read(path, drop_empty=True).num_cells == 2376


def test_spatialdata_store_of_molecules_is_counted(real_data):
    pytest.importorskip("spatialdata")
    path = real_data / "merfish_u2os/merfish_sample.zarr"
    with pytest.raises(ValueError, match="Pixels.*mpp="):
        read(path)
    slide = read(path, mpp=0.1)
    assert (slide.num_cells, slide.num_genes) == (15, 130)  # and 5 controls


@pytest.mark.filterwarnings("ignore:.* channels of the image of .* show next to nothing")
def test_spaceranger_folder_reads_like_spatialdata_io(real_data):
    spatialdata_io = pytest.importorskip("spatialdata_io")
    folder = real_data / "vendor_folders/visium_spaceranger_1.0.0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = spatialdata_io.visium(folder, dataset_id="v").tables["table"]
    ours = read(folder)
    mpp = ours.adata.uns["spatiagraph"]["read"]["mpp"]
    assert ours.adata.obs_names.equals(theirs.obs_names)
    np.testing.assert_array_equal(ours.counts.toarray(), theirs.X.toarray())
    np.testing.assert_allclose(ours.pos, theirs.obsm["spatial"] * mpp)


def test_a_slide_written_with_its_results_needs_no_arguments_again(tmp_path):
    spots = cells(30, scale=2.0)
    spots.write_h5ad(tmp_path / "raw.h5ad")
    Image.new("RGB", (500, 400), "purple").save(tmp_path / "he.png")
    first = read(
        tmp_path / "raw.h5ad",
        image=tmp_path / "he.png",
        mpp=0.5,
        image_mpp=0.6,
        origin_um=(-10, -20),
        slide_id="s1",
        donor="d1",
    )
    first.adata.write_h5ad(tmp_path / "results.h5ad")
    again = read(tmp_path / "results.h5ad")
    np.testing.assert_array_equal(again.pos, first.pos)
    assert (again.slide_id, again.donor, again.image.mpp) == ("s1", "d1", 0.6)
    assert tuple(again.image.origin_um) == (-10, -20)
    assert again.adata.uns["spatiagraph"]["read"]["mpp"] == 0.5


def test_normalised_values_stay_normalised_when_read_again(tmp_path):
    table = cells()
    table.X = table.X.multiply(0.5).tocsr()
    table.write_h5ad(tmp_path / "raw.h5ad")
    read(tmp_path / "raw.h5ad", expression="normalized").adata.write_h5ad(tmp_path / "again.h5ad")
    assert read(tmp_path / "again.h5ad").expression == "normalized"


def test_an_image_that_moved_away_is_named_in_a_warning(tmp_path):
    cells().write_h5ad(tmp_path / "raw.h5ad")
    Image.new("RGB", (500, 500), "purple").save(tmp_path / "he.png")
    slide = read(tmp_path / "raw.h5ad", image=tmp_path / "he.png", image_mpp=0.5)
    slide.adata.write_h5ad(tmp_path / "results.h5ad")
    (tmp_path / "he.png").unlink()
    with pytest.warns(UserWarning, match="no longer at .*he.png"):
        assert read(tmp_path / "results.h5ad").image is None


def test_a_slide_read_again_has_the_crops_it_had(tmp_path):
    adata = cells(400, 1.0)
    dapi = np.random.default_rng(0).integers(0, 27, (420, 420), dtype=np.uint8)
    stack = np.stack([dapi, dapi // 2, dapi // 3])
    metadata = {"axes": "CYX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0}
    tifffile.imwrite(tmp_path / "i.ome.tif", stack, metadata=metadata)
    adata.write_h5ad(tmp_path / "a.h5ad")
    chosen = SlideImage.open(tmp_path / "i.ome.tif", channels=[0, 2], value_range=(1, 20))
    slide = read(tmp_path / "a.h5ad", image=chosen)
    assert slide.image is chosen
    write(slide, tmp_path / "b.h5ad")
    tifffile.imwrite(tmp_path / "i.ome.tif", stack * 9, metadata=metadata)  # a brighter scan
    again = read(tmp_path / "b.h5ad")
    assert again.image.channels == [0, 2]
    np.testing.assert_array_equal(again.image.value_range, [[1, 20]] * 2)
    with pytest.raises(ValueError, match="of the SlideImage that was given"):
        read(tmp_path / "a.h5ad", image=chosen, image_mpp=0.5)


def test_a_store_read_again_has_the_crops_it_had(tmp_path):
    pytest.importorskip("spatialdata")
    picture = np.random.default_rng(0).integers(0, 27, (420, 420, 2), dtype=np.uint8)
    image = SlideImage([picture], mpp=1.0, value_range=(2, 20))
    write(Slide(cells(400), image, slide_id="a"), tmp_path / "plain.zarr")
    assert read(tmp_path / "plain.zarr").image.value_range.max() > 20  # nothing was noted
    cells(400).write_h5ad(tmp_path / "a.h5ad")
    write(read(tmp_path / "a.h5ad", image=image), tmp_path / "noted.zarr")
    again = read(tmp_path / "noted.zarr")
    np.testing.assert_array_equal(again.image.value_range, [[2, 20]] * 2)


def beside_each_file(folder):
    """What a Mac's Finder leaves on a foreign disk."""
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07\x00\x02" + bytes(120))
    (folder / ".DS_Store").write_bytes(bytes(10))


@pytest.mark.parametrize("write_folder", [write_spaceranger, write_xenium])
def test_files_that_a_mac_leaves_beside_others_are_not_looked_at(tmp_path, write_folder):
    write_folder(tmp_path / "s")
    before = read(tmp_path / "s")
    beside_each_file(tmp_path / "s")
    after = read(tmp_path / "s")
    assert repr(after) == repr(before)
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "._a.h5ad").write_bytes(b"x")
    with pytest.raises(ValueError, match="with nothing in it"):
        read(tmp_path / "e")


def test_morphology_of_which_the_first_file_is_missing_opens(tmp_path):
    write_xenium(tmp_path / "x", image=False)
    focus = tmp_path / "x" / "morphology_focus"
    focus.mkdir()
    pixels = np.random.default_rng(0).integers(0, 999, (600, 600)).astype(np.uint16)
    tifffile.imwrite(focus / "ch0001_boundary.ome.tif", pixels, metadata={"axes": "YX"})
    (tmp_path / "x" / "experiment.xenium").write_text('{"pixel_size": 1.0}')
    slide = read(tmp_path / "x")
    assert slide.image.path.name == "ch0001_boundary.ome.tif"


@pytest.mark.parametrize("mpp", [0.362, 1.449, 40.0, 0.01])
def test_a_scale_in_a_folder_that_the_spots_speak_against_is_refused(tmp_path, mpp):
    write_spaceranger(tmp_path / "s", factors={"microns_per_pixel": mpp})
    with pytest.raises(ValueError, match=r"microns_per_pixel.*Pass mpp="):
        read(tmp_path / "s")
    assert read(tmp_path / "s", mpp=1 / 1.38).num_cells == 63
    (tmp_path / "s" / "spatial" / "scalefactors_json.json").write_text("{}")
    assert neighbor_distance(read(tmp_path / "s").pos) == pytest.approx(100, rel=0.01)


def test_spots_of_an_image_that_was_stretched_are_refused(tmp_path):
    write_spaceranger(tmp_path / "s", factors={})
    path = tmp_path / "s" / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(path)
    table["pxl_col_in_fullres"] *= 1.3
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"stretched or out of place.*Pass mpp="):
        read(tmp_path / "s")


# Layouts of today -------------------------------------------------------------------------------


def write_segmented(folder, mpp=0.27, num_cells=60, shift=0):
    """Cells of Visium HD as Space Ranger 4 segments them; returns their centres in µm."""
    rng = np.random.default_rng(0)
    centre = rng.uniform(900, 900 + 45 * np.sqrt(num_cells), (num_cells, 2))
    (folder / "spatial").mkdir(parents=True)
    number = np.arange(1, num_cells + 1)
    names = [f"cellid_{i:09d}-1" for i in number]
    write_10x_h5(folder / "filtered_feature_cell_matrix.h5", names, with_control(counts(num_cells)))
    square = np.array([(-9, -9), (9, -9), (9, 9), (-9, 9), (-9, -9)])
    features = [
        {
            "type": "Feature",
            "properties": {"cell_id": int(i) + shift},
            "geometry": {"type": "Polygon", "coordinates": [(at + square).tolist()]},
        }
        for i, at in zip(number, centre, strict=True)
    ]
    features[3]["geometry"] = {  # a crumb beside the cell
        "type": "MultiPolygon",
        "coordinates": [[[[0, 0], [1, 0], [0, 1]]], features[3]["geometry"]["coordinates"]],
    }
    text = json.dumps({"type": "FeatureCollection", "features": features[::-1]})
    (folder / "cell_segmentations.geojson").write_text(text)
    factors = {} if mpp is None else {"microns_per_pixel": mpp, "tissue_hires_scalef": 0.12}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    return centre * (mpp or 1)


def test_segmented_cells_of_visium_hd_lie_at_the_centroids_of_their_outlines(tmp_path):
    centre = write_segmented(tmp_path / "segmented_outputs")
    slide = read(tmp_path / "segmented_outputs")
    np.testing.assert_allclose(slide.pos, centre, atol=1e-6)
    np.testing.assert_array_equal(slide.counts.toarray(), counts(60))
    with pytest.raises(ValueError, match="Expected one slide.*with segmented_outputs"):
        read(tmp_path)


def test_segmented_cells_without_outline_are_dropped_and_of_other_cells_refused(tmp_path):
    write_segmented(tmp_path / "a", shift=1)
    with pytest.warns(UserWarning, match="Dropped 1 of 60 cells.*cellid_000000001-1"):
        assert read(tmp_path / "a").num_cells == 59
    write_segmented(tmp_path / "b", shift=1000)
    with pytest.raises(ValueError, match="outlines of the cells of filtered.*got none"):
        read(tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cell_segmentations.geojson beside filtered_feature_cell_matrix.h5"),
        ("{}", "FeatureCollection of outlines in cell_segmentations.geojson"),
        ('{"features": [{"properties": {}}]}', "got another thing in feature 0"),
        ('{"features": [', "cell_segmentations.geojson"),
    ],
)
def test_damaged_outlines_of_segmented_cells_are_named(tmp_path, text, message):
    write_segmented(tmp_path / "a")
    path = tmp_path / "a" / "cell_segmentations.geojson"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a")


@pytest.mark.parametrize("mpp", [None, 27.0, 0.01])
def test_segmented_cells_need_a_scale_that_fits(tmp_path, mpp):
    write_segmented(tmp_path / "a", mpp)
    with pytest.raises(ValueError, match="Pass mpp="):
        read(tmp_path / "a")
    assert read(tmp_path / "a", mpp=0.27).num_cells == 60


@pytest.fixture
def bins(tmp_path):
    """A store with a table for each size of bins, whose ids are numbers or text."""
    spatialdata, models = pytest.importorskip("spatialdata"), __import__("spatialdata.models")
    from geopandas import GeoDataFrame
    from shapely.geometry import Point

    def write(kinds=(int, int), missing=0):
        elements = {}
        for size in (8, 16):
            y, x = (v.ravel() for v in np.mgrid[:5, :5])
            points = [Point(*p) for p in np.c_[x, y] * float(size)]
            names = [kinds[0](i) for i in range(25)]
            frame = GeoDataFrame({"radius": [1.0] * 25}, geometry=points, index=names)
            adata = cells(25)
            del adata.obsm["spatial"]
            adata.obs["region"] = pd.Categorical([f"bins_{size}"] * 25)
            adata.obs["bin"] = [kinds[1](i + (missing if i < missing else 0)) for i in range(25)]
            elements[f"bins_{size}"] = models.models.ShapesModel.parse(frame)
            elements[f"square_{size:03d}um"] = models.models.TableModel.parse(
                adata, region=f"bins_{size}", region_key="region", instance_key="bin"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spatialdata.SpatialData.init_from_elements(elements).write(tmp_path / "s.zarr")
        return tmp_path / "s.zarr"

    return write


@pytest.mark.parametrize("kinds", [(int, int), (str, int), (int, str)])
def test_a_table_of_a_store_is_chosen_and_its_ids_may_be_numbers_or_text(bins, kinds):
    path = bins(kinds)
    assert neighbor_distance(read(path, table="square_008um").pos) == 8
    assert neighbor_distance(read(path, table="square_016um").pos) == 16
    with pytest.raises(ValueError, match="'square_008um', 'square_016um': pass table="):
        read(path)
    with pytest.raises(ValueError, match="table='square' .*Nearest: 'square_0"):
        read(path, table="square")


def test_ids_that_have_nothing_in_common_are_both_named(bins):
    with pytest.raises(ValueError, match=r"shapes 'bins_8'.*obs\['bin'\] is .*shapes are called 0"):
        read(bins((int, lambda i: f"bin{i}")), table="square_008um")


def test_cells_without_a_place_are_dropped_when_asked(tmp_path):
    adata = cells(50)
    adata.obsm["spatial"][[3, 7]] = np.nan
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="2 of 50 cells: row 3 'c3', row 7 'c7'.*drop_unplaced"):
        read(tmp_path / "a.h5ad")
    with pytest.warns(UserWarning, match="Dropped 2 of 50 cells that have no place: 'c3', 'c7'"):
        assert read(tmp_path / "a.h5ad", drop_unplaced=True).num_cells == 48
    write_xenium(tmp_path / "x")
    path = tmp_path / "x" / "cells.parquet"
    table = pd.read_parquet(path)
    table.iloc[1:].to_parquet(path)
    with pytest.raises(ValueError, match="got none for 1 of .*drop_unplaced=True"):
        read(tmp_path / "x")
    with pytest.warns(UserWarning, match=f"Dropped 1 of {len(table)} cells"):
        assert read(tmp_path / "x", drop_unplaced=True).num_cells == len(table) - 1


@pytest.mark.parametrize("names", [("x", "y"), ("x_um", "y_um"), ("x_location", "y_location")])
def test_a_part_of_a_slide_opens_with_its_image_and_its_molecules(tmp_path, names):
    adata = cells(400)
    adata.write_h5ad(tmp_path / "a.h5ad")
    pos = adata.obsm["spatial"]
    gene, control = (
        ("feature_name", "is_gene") if "location" in names[0] else ("gene", "is_control")
    )
    table = pd.DataFrame(pos, columns=names).assign(**{gene: "SAMD11", control: False})
    table["cell_id"] = adata.obs_names
    table.to_parquet(tmp_path / "m.parquet")
    dapi = np.random.default_rng(0).integers(0, 99, (200, 100), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "i.tif", dapi)
    options = {"image": tmp_path / "i.tif", "image_mpp": 1.0, "origin_um": (150, 100)}
    options["transcripts"] = tmp_path / "m.parquet"
    with pytest.raises(ValueError, match="image that covers the cells"):
        read(tmp_path / "a.h5ad", **options)
    inside = ((pos >= (150, 100)) & (pos < (250, 300))).all(axis=1)
    part = read(tmp_path / "a.h5ad", crop_um="image", **options)
    assert part.adata.obs_names.tolist() == adata.obs_names[inside].tolist()
    assert part.transcripts["cell_id"].tolist() == adata.obs_names[inside].tolist()
    assert part.transcripts["is_gene"].tolist() == [control == "is_control"] * inside.sum()
    same = read(tmp_path / "a.h5ad", crop_um=(150, 100, 250, 300))
    np.testing.assert_array_equal(same.pos, part.pos)
    for box, message in (
        ((0, 0, 0, 9), "x0 < x1"),
        ("image", "Expected an image for crop_um"),
        ((9e5, 0, 1e6, 9), "got none of 400, which span x"),
    ):
        with pytest.raises(ValueError, match=message):
            read(tmp_path / "a.h5ad", crop_um=box)


@pytest.mark.parametrize("options", [{"image_mpp": 0.5}, {"origin_um": (1.0, 2.0)}])
def test_a_scale_or_place_of_an_image_that_is_not_there_is_refused(tmp_path, options):
    cells().write_h5ad(tmp_path / "a.h5ad")
    for image in (None, False):
        with pytest.raises(ValueError, match=f"image for {next(iter(options))}, got none with a"):
            read(tmp_path / "a.h5ad", image=image, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": "clr"}, "transform='clr' with kind='protein', got kind='genes'"),
        ({"type_key": "type"}, "type_key='type' with kind='types', got kind='genes'"),
        ({"table": "cells"}, "table='cells' with a .zarr, got the file a.h5ad"),
    ],
)
def test_options_that_nothing_would_read_are_refused(tmp_path, options, message):
    cells().write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "a.h5ad", **options)


# Files by their content ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.H5AD", "a.h5", "a.hdf5"])
def test_an_anndata_opens_whatever_its_file_is_called(tmp_path, name):
    cells().write_h5ad(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name).pos, cells().obsm["spatial"])


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_an_anndata_in_a_zarr_store_opens(tmp_path):
    cells().write_zarr(tmp_path / "a.zarr")
    slide = read(tmp_path / "a.zarr")
    assert slide.slide_id == "a"
    np.testing.assert_array_equal(slide.counts.toarray(), cells().X.toarray())


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("a.h5ad.gz", "gunzip"),
        ("a.zarr.zip", "unpack it, and pass what is in it"),
        ("a.rds", "zellkonverter"),
        ("a.cellbin.gef", "stereopy"),
        ("a.loom", "read_loom"),
        ("a.xlsx", "Save the sheet as .csv"),
        ("a.svs", "An image is passed as image=…"),
    ],
)
def test_files_of_other_kinds_are_refused_with_the_way_on(tmp_path, name, way):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=f"got the file {name}.*{way}"):
        read(tmp_path / name)
