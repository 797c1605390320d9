"""Tables and matrices that are whole as files and wrong in what they say: refused by name."""

import gzip
import os

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from fuzzing.vendors import VENDORS

from spatiagraph.data.image import SlideImage
from spatiagraph.data.read import read

shapely = pytest.importorskip("shapely")


@pytest.fixture
def folder(tmp_path, request):
    """A folder of a vendor, by indirect parametrisation."""
    VENDORS[request.param](tmp_path / request.param)
    return tmp_path / request.param


def of(vendor):
    return pytest.mark.parametrize("folder", [vendor], indirect=True)


def columns(folder, name, **change):
    """Write a parquet table anew with columns that are functions of the old ones."""
    table = pd.read_parquet(folder / name)
    for column, make in change.items():
        table[column] = make(table[column] if column in table else table)
    table.to_parquet(folder / name)


def first_row(value):
    return lambda column: [value, *column[1:]]


@of("xenium")
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("cells", {"x_centroid": pd.to_datetime}, "'x_centroid' of cells.parquet, got times"),
        ("cells", {"x_centroid": pd.to_timedelta}, "'x_centroid' of cells.parquet, got times"),
        ("cells", {"x_centroid": first_row(np.nan)}, "y_centroid of cells.parquet, got NaN"),
        ("cells", {"cell_id": first_row(b"\xff")}, "'cell_id' of cells.parquet, got byte 0xff"),
        ("cells", {"x_centroid": lambda x: x * 1e300}, "within 1e.09 of 0"),
        ("transcripts", {"x_location": pd.to_datetime}, "'x_location' of transcripts.parquet"),
        ("transcripts", {"x_location": first_row(1e300)}, "more than 1e.09 in 1 of 770 rows"),
        ("transcripts", {"is_gene": lambda t: "no"}, "true or false in column 'is_gene' of trans"),
        ("transcripts", {"is_gene": lambda t: [None] * len(t)}, "true or false .* got None in row"),
        ("transcripts", {"overlaps_nucleus": lambda t: 7}, "true or false .* got 7 in row 0"),
    ],
)
def test_values_of_another_kind_are_refused(folder, name, change, message):
    columns(folder, f"{name}.parquet", **change)
    with pytest.raises(ValueError, match=message):
        read(folder)


@of("xenium")
@pytest.mark.parametrize("kind", [str, lambda x: pa.array(x.round(3)).cast(pa.decimal128(20, 3))])
def test_molecules_whose_places_are_text_or_decimals_have_numbers(folder, kind):
    molecules = pd.read_parquet(folder / "transcripts.parquet")
    x = molecules["x_location"].round(3)
    made = pa.array([str(v) for v in x]) if kind is str else kind(x)
    table = pa.Table.from_pandas(molecules.drop(columns="x_location"))
    pq.write_table(table.append_column("x_location", made), folder / "transcripts.parquet")
    np.testing.assert_array_equal(read(folder).transcripts["x_um"].to_numpy(np.float64), x)
    assert read(folder).transcripts["x_um"].dtype.kind == "f"


@of("xenium")
def test_drop_unplaced_leaves_out_cells_whose_place_is_missing(folder):
    columns(folder, "cells.parquet", x_centroid=first_row(np.nan))
    with pytest.warns(
        UserWarning, match="Dropped 1 of 30 cells .* no place in cells.parquet: 'c0'"
    ):
        slide = read(folder, drop_unplaced=True)
    assert list(slide.adata.obs_names) == [f"c{i}" for i in range(1, 30)]


@of("xenium")
@pytest.mark.parametrize("noted", [b"{", b'{"index_columns": ["nope"], "columns": []}'])
def test_what_pandas_notes_of_a_parquet_file_is_no_matter(folder, noted):
    whole = read(folder).pos
    table = pd.read_parquet(folder / "cells.parquet")
    plain = pa.Table.from_pandas(table, preserve_index=False)
    pq.write_table(plain.replace_schema_metadata({b"pandas": noted}), folder / "cells.parquet")
    np.testing.assert_array_equal(read(folder).pos, whole)
    table.set_index("cell_id").to_parquet(folder / "cells.parquet")
    np.testing.assert_array_equal(read(folder).pos, whole)


@of("xenium")
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_column_that_is_there_twice_is_refused(folder, suffix):
    table = pa.Table.from_pandas(pd.read_parquet(folder / "cells.parquet"), preserve_index=False)
    table = table.append_column("x_centroid", table["y_centroid"])
    (folder / "cells.parquet").unlink()
    if suffix == "csv":
        table.to_pandas().to_csv(folder / "cells.csv", index=False)
    else:
        pq.write_table(table, folder / "cells.parquet")
    with pytest.raises(ValueError, match=f"cells.{suffix} once, got x_centroid more often"):
        read(folder)


def corners():
    """Squares around the cells of the folder, some µm wide."""
    index = np.arange(30)
    return pd.DataFrame(
        {
            "cell_id": np.repeat([f"c{i}" for i in index], 4),
            "vertex_x": np.tile([0.0, 4, 4, 0], 30) + np.repeat(20 + 12.0 * (index % 6), 4),
            "vertex_y": np.tile([0.0, 0, 4, 4], 30) + np.repeat(20 + 12.0 * (index // 6), 4),
        }
    )


@of("xenium")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertex_x": np.nan}, "corners of cells in cell_boundaries.parquet .* none in 120 rows"),
        ({"vertex_x": np.inf}, "corners of cells in cell_boundaries.parquet"),
        ({"vertex_x": "left"}, "'vertex_x' of cell_boundaries.parquet, got 'left'"),
        ({"vertex_x": pd.Timestamp("2026-01-01")}, "'vertex_x' of cell_boundaries.parquet, got ti"),
        ({"cell_id": "other"}, "outlines of the cells in cell_boundaries.parquet, got .* 'other'"),
    ],
)
def test_outlines_of_xenium_that_are_damaged_are_named(folder, change, message):
    (folder / "cells.parquet").unlink()
    corners().to_parquet(folder / "cell_boundaries.parquet")
    np.testing.assert_allclose(read(folder).pos[0], [22, 22])
    corners().assign(**change).to_parquet(folder / "cell_boundaries.parquet")
    with pytest.raises(ValueError, match=message):
        read(folder)


def outlines(folder):
    """Outlines of the cells of a MERSCOPE folder, instead of their table."""
    cells = pd.read_csv(folder / "cell_metadata.csv")
    (folder / "cell_metadata.csv").unlink()
    circles = shapely.points(cells[["center_x", "center_y"]].to_numpy())
    return pd.DataFrame(
        {
            "EntityID": cells["EntityID"],
            "ZIndex": 0,
            "Geometry": list(shapely.to_wkb(shapely.buffer(circles, 3.0))),
        }
    )


def wkb(shape):
    return first_row(shapely.to_wkb(shape))


@of("merscope")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"Geometry": first_row(None)}, "WKB in each row of outlines.parquet, got None in row 0"),
        ({"Geometry": first_row(b"abc")}, "as WKB in outlines.parquet, got "),
        ({"Geometry": lambda g: [v[:50] for v in g]}, "as WKB in outlines.parquet, got "),
        ({"Geometry": wkb(shapely.Point(0, 0))}, "got a Point of area 0 in row 0"),
        ({"Geometry": wkb(shapely.Polygon())}, "got a Polygon of area 0 in row 0"),
        ({"Geometry": lambda g: [[v] for v in g]}, "lists in column 'Geometry'"),
        ({"ZIndex": first_row(None)}, "a cell and a plane for each outline in outlines.parquet"),
        ({"ZIndex": lambda z: "top"}, "'ZIndex' of outlines.parquet|'z_plane' of outlines.parq"),
        ({"EntityID": lambda e: None}, "a cell and a plane for each outline in outlines.parquet"),
        ({"EntityID": lambda e: 1}, "each cell of cell_by_gene.csv in outlines.parquet, got none"),
    ],
)
def test_outlines_of_merscope_that_are_damaged_are_named(folder, change, message):
    whole = read(folder).pos
    table = outlines(folder)
    table.to_parquet(folder / "outlines.parquet")
    np.testing.assert_allclose(read(folder).pos, whole, atol=1e-6)
    columns(folder, "outlines.parquet", **change)
    with pytest.raises(ValueError, match=message):
        read(folder)


@of("merscope")
def test_mosaics_whose_names_end_in_no_plane_are_left_out(folder):
    mosaic = folder / "images" / "mosaic_DAPI_z0.tif"
    mosaic.rename(mosaic.with_name("mosaic_DAPI_z0 (1).tif"))
    assert read(folder).image is None


@of("merscope")
def test_a_table_that_ends_in_the_middle_of_a_row_is_refused(folder):
    path = folder / "detected_transcripts.csv"
    content = path.read_bytes()
    path.write_bytes(content.rstrip(b"\n"))
    assert len(read(folder).transcripts) == 770
    path.write_bytes(content[: content.rindex(b",", 0, len(content) // 2)])
    with pytest.raises(ValueError, match="detected_transcripts.csv .a last row of 2 fields of 6"):
        read(folder)
    path.write_bytes(content[: content.index(b"\n") + 1])
    with pytest.raises(ValueError, match="molecules in detected_transcripts.csv, got none"):
        read(folder)


@of("merscope")
def test_cells_that_the_counts_lack_are_said(folder):
    path = folder / "cell_by_gene.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:20]))
    with pytest.warns(UserWarning, match="11 of 30 cells of cell_metadata.csv are not in cell_by"):
        read(folder)


@of("spaceranger")
@pytest.mark.parametrize(
    ("column", "value"), [("in_tissue", ""), ("in_tissue", 0.5), ("in_tissue", 1e300)]
)
def test_spots_are_in_tissue_or_not(folder, column, value):
    path = folder / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(path).astype({column: object})
    table.loc[1, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match="in_tissue of 0 or 1.* for 'B1-1'"):
        read(folder)


HEAD = "%%MatrixMarket matrix coordinate integer general\n"


@of("spaceranger")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line '%%MatrixMarket matrix coordinate integer general' but ''"),
        (HEAD.replace("coordinate", "array") + "6 30\n", "no line .* but '%%MatrixMarket matrix a"),
        (HEAD.replace("integer", "complex") + "6 30 1\n1 1 1 1\n", "no line .* complex general'"),
        (HEAD + "%\n6.0 30 1\n1 1 1\n", "no sizes but '6.0 30 1'"),
        (HEAD + f"6 30 {2**50}\n1 1 1\n", "1,125,899,906,842,624 entries of 6 × 30 in 4 lines"),
        (HEAD + f"{2**40} 30 1\n1 1 1\n", "no sizes|entries of 1,099,511,627,776 × 30"),
        (HEAD + "6 30 1\n1 1 1\0\n", "a NUL byte, which is no text, in line 3"),
        (HEAD + "6 30 1\n7 1 1\n", "got matrix.mtx.gz"),
    ],
)
def test_matrix_market_files_are_looked_at_before_they_are_read(folder, text, message):
    path = folder / "filtered_feature_bc_matrix" / "matrix.mtx.gz"
    path.write_bytes(gzip.compress(text.encode()))
    with pytest.raises(
        ValueError, match=f"Matrix Market file, got matrix.mtx.gz: .*{message}|{message}"
    ):
        read(folder)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("xenium", "cells.parquet"),
        ("xenium", "morphology_mip.ome.tif"),
        ("merscope", "cell_metadata.csv"),
        ("merscope", "images/micron_to_mosaic_pixel_transform.csv"),
        ("cosmx", "S1_tx_file.csv.gz"),
        ("spaceranger", "spatial/tissue_positions.csv"),
        ("spaceranger", "filtered_feature_bc_matrix/matrix.mtx.gz"),
        ("spaceranger", "filtered_feature_bc_matrix/barcodes.tsv"),
    ],
    indirect=["folder"],
)
def test_pipes_and_devices_are_not_waited_for(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ValueError, match=f"at .*{name}, found a pipe or device"):
        read(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=f"at .*{name}, found a pipe or device"):
        read(folder)


@of("xenium")
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape", np.array([2**64 - 1, 30], np.uint64), "two sizes below 2.31"),
        ("shape", np.array([-7, 30]), "two sizes below 2.31"),
        ("data", np.full(210, 2**24 + 1), "counts below 16,777,216, got more in row 0 'c0'"),
        ("features/name", ["", *"BCDEFG"], "gene names that are not empty"),
    ],
)
def test_feature_matrices_that_cannot_be_are_refused(folder, key, value, message):
    with h5py.File(folder / "cell_feature_matrix.h5", "r+") as file:
        group = file["matrix"]
        del group[key]
        group.create_dataset(key, data=value, dtype=h5py.string_dtype() if "name" in key else None)
    with pytest.raises(ValueError, match=message):
        read(folder)


def test_pipes_in_a_store_are_not_waited_for(tmp_path):
    store = tmp_path / "a.zarr"
    zarr.create_array(store, data=np.ones((30, 30), np.uint8), chunks=(30, 30))
    assert SlideImage.open(store, mpp=1.0).shape == (30, 30, 1)
    chunk = next(p for p in store.rglob("*") if p.is_file() and p.parent != store)
    chunk.unlink()
    os.mkfifo(chunk)
    for call in (lambda: SlideImage.open(store, mpp=1.0), lambda: read(store)):
        with pytest.raises(ValueError, match="a file of a store at .*, found a pipe or device"):
            call()
