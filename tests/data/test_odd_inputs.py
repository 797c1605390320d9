"""What people bring in other ways than was meant: it opens as it was meant, or is named."""

import json

import numpy as np
import pandas as pd
import pytest
import tifffile
from anndata import AnnData
from fuzzing.vendors import VENDORS
from PIL import Image

import spatiagraph as sg
from spatiagraph.cli.wording import as_typed
from spatiagraph.data.checks import nearest
from spatiagraph.data.molecules.table import MoleculeTable
from spatiagraph.data.read.tables import read_counts, read_table

RNG = np.random.default_rng(0)
POS = RNG.uniform(0, 1, (150, 2)) * (250, 200)
TYPES = {"kind": "types", "type_key": "kind", "mpp": 1}


def cells(**more):
    found = {"x": POS[:, 0], "y": POS[:, 1], "area": POS[:, 1] + 7, "kind": ["a", "b"] * 75}
    return pd.DataFrame({"cell_id": [f"c{i}" for i in range(150)], **found, **more})


@pytest.mark.parametrize("sep", [",", "\t", ";"])
def test_marks_at_the_ends_of_rows_shift_no_column(tmp_path, sep):
    head, *rows = cells().to_csv(index=False, sep=sep).splitlines()
    (tmp_path / "c.csv").write_text("\n".join([head, *(row + sep for row in rows)]) + "\n")
    slide = sg.read(tmp_path / "c.csv", **TYPES)
    np.testing.assert_allclose(slide.pos, POS)
    assert slide.adata.obs_names[:2].tolist() == ["c0", "c1"]


@pytest.mark.parametrize("sep", [",", "\t"])
def test_row_names_of_r_have_no_name_above_them(tmp_path, sep):
    named = cells().to_csv(index=True, index_label=False, sep=sep)
    assert named.splitlines()[1].count(sep) == named.splitlines()[0].count(sep) + 1
    (tmp_path / "c.txt").write_text(named)
    slide = sg.read(tmp_path / "c.txt", **TYPES)
    np.testing.assert_allclose(slide.pos, POS)
    assert slide.adata.obs_names[:2].tolist() == ["c0", "c1"]


def test_quoted_row_names_of_r_beside_a_column_that_begins_empty(tmp_path):
    rows = [f'"{i + 1}","c{i}",{x},{y},"t{i % 2}",' for i, (x, y) in enumerate(POS)]
    (tmp_path / "c.csv").write_text("\n".join(['"cell_id","x","y","kind","note"', *rows]) + "\n")
    slide = sg.read(tmp_path / "c.csv", **TYPES)
    np.testing.assert_allclose(slide.pos, POS)
    assert slide.adata.obs_names[:2].tolist() == ["c0", "c1"]


def test_a_column_that_is_there_twice_and_not_needed_is_no_damage(tmp_path):
    head, *rows = cells().assign(a=1, b=2).to_csv(index=False).splitlines()
    head = "#" + head.replace("a,b", "note,note") if head.endswith(",a,b") else head
    assert head.endswith("note,note")
    (tmp_path / "c.csv").write_text("\n".join([head, *rows]) + "\n")
    np.testing.assert_allclose(sg.read(tmp_path / "c.csv", **TYPES).pos, POS)


def test_molecules_beside_a_column_of_numbers_with_commas_that_nobody_reads(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text('gene,x,y,tag\nGad1,1,2,"1,234"\nSst,3,4,999\n')
    (batch,) = MoleculeTable(path).batches()
    np.testing.assert_array_equal(batch.values["x_um"], [1, 3])


def test_counts_and_molecules_with_marks_at_the_ends_of_rows(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("cell,Gad1,Sst\nc1,1,2,\nc2,3,4,\n")
    ids, adata = read_counts(path, ["cell", "Unnamed: 3"])
    assert ids["cell"].tolist() == ["c1", "c2"]
    np.testing.assert_array_equal(adata.X.toarray(), [[1, 2], [3, 4]])
    path.write_text("x,y,gene\n1,2,Gad1,\n3,4,Sst,\n")
    (batch,) = MoleculeTable(path).batches()
    np.testing.assert_array_equal(batch.values["x_um"], [1, 3])


@pytest.mark.parametrize("rows", ["1,2,3,4\n", "1,2,3\n4,5,6,7\n", "1,2,3\n4,5\n"])
def test_rows_that_do_not_fit_the_header_are_refused(tmp_path, rows):
    (tmp_path / "c.csv").write_text("x,y\n" + rows)
    with pytest.raises(ValueError, match=r"in c\.csv: its header has 2 fields and its first row"):
        read_table(tmp_path / "c.csv")


def test_spaces_around_the_names_of_columns_are_none_of_them(tmp_path):
    padded = cells().rename(columns={"x": " x", "y": " y ", "kind": "kind "})
    padded.to_csv(tmp_path / "c.csv", index=False)
    np.testing.assert_allclose(sg.read(tmp_path / "c.csv", **TYPES).pos, POS)


@pytest.mark.parametrize("index", [False, True])
def test_fields_that_spaces_part_are_named(tmp_path, index):
    cells().to_csv(tmp_path / "c.txt", index=index, index_label=False, sep=" ")
    with pytest.raises(ValueError, match="in c.txt: spaces part its fields: write commas or tabs"):
        sg.read(tmp_path / "c.txt", **TYPES)


def test_the_nearest_name_may_differ_in_its_letters():
    assert nearest("X", ["x", "area"]).startswith("Nearest: 'x'; ")
    assert nearest("cell_type", ["Cell_Type ", "area"]).startswith("Nearest: 'Cell_Type '; ")


def test_ids_that_occur_twice_are_said(tmp_path):
    cells(cell_id=[f"c{i % 75}" for i in range(150)]).to_csv(tmp_path / "c.csv", index=False)
    with pytest.warns(UserWarning, match="150 of 150 rows of c.csv share their cell_id with anoth"):
        assert sg.read(tmp_path / "c.csv", **TYPES).adata.obs_names[:2].tolist() == ["0", "1"]


def test_counts_of_genes_in_a_table_are_told_the_way(tmp_path):
    cells().to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(ValueError, match="counts of genes, write an .h5ad .*pass its folder"):
        sg.read(tmp_path / "c.csv")


@pytest.mark.parametrize("key", ["cell_id", "area"])
def test_ids_and_measurements_are_no_types(tmp_path, key):
    cells().to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(ValueError, match=rf"obs\['{key}'\], got 150 different values in 150 cells"):
        sg.read(tmp_path / "c.csv", kind="types", type_key=key, mpp=1)


@pytest.mark.parametrize("flags", [[0, 1, 1], [False, True, True], ["0", "1", "1"]])
def test_spots_beside_the_tissue_are_said(flags):
    adata = AnnData(np.ones((150, 3), np.float32), obsm={"spatial": POS})
    adata.obs["in_tissue"] = flags * 50
    with pytest.warns(UserWarning, match="50 of 150 spots lie beside the tissue"):
        sg.read(adata)
    adata.obs["in_tissue"] = 1
    sg.read(adata)


@pytest.fixture
def xenium(tmp_path):
    VENDORS["xenium"](tmp_path / "x")
    (tmp_path / "x" / "morphology_mip.ome.tif").unlink()
    return tmp_path / "x"


def change(folder, make):
    make(pd.read_parquet(folder / "cells.parquet")).to_parquet(folder / "cells.parquet")


def test_cells_that_are_swapped_against_their_molecules_are_refused(xenium):
    swapped = {"x_centroid": "y_centroid", "y_centroid": "x_centroid"}
    change(xenium, lambda table: table.rename(columns=swapped))
    with pytest.raises(ValueError, match="among their own molecules, .* with x and y swapped"):
        sg.read(xenium)
    assert len(sg.read(xenium, transcripts=False)) == 30


def test_cells_in_another_unit_than_their_molecules_are_doubted(xenium):
    def in_pixels(table):
        return table.assign(x_centroid=table["x_centroid"] * 4, y_centroid=table["y_centroid"] * 4)

    change(xenium, in_pixels)
    with pytest.warns(UserWarning, match="µm from their own molecules .median.: one of both is in"):
        sg.read(xenium)


def test_another_picture_of_xenium_has_a_scale_of_its_own(xenium, tmp_path):
    he = np.full((600, 600, 3), 200, np.uint8)
    scale = {"axes": "YXS", "PhysicalSizeX": 0.35, "PhysicalSizeY": 0.35}
    tifffile.imwrite(tmp_path / "he.ome.tif", he, photometric="rgb", metadata=scale)
    assert sg.read(xenium, image=tmp_path / "he.ome.tif").image.mpp == 0.35
    assert sg.read(xenium, image=tmp_path / "he.ome.tif", image_mpp=0.36).image.mpp == 0.36
    Image.fromarray(he).save(tmp_path / "he.png")
    with pytest.warns(UserWarning, match="he.png does not say its scale and is taken .* 0.2125 µm"):
        assert sg.read(xenium, image=tmp_path / "he.png").image.mpp == 0.2125
    assert json.loads((xenium / "experiment.xenium").read_text()) == {"pixel_size": 0.2125}


def test_two_scales_of_one_image_are_said(tmp_path):
    scale = {"axes": "YXS", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0}
    he = np.full((1100, 1100, 3), 200, np.uint8)
    tifffile.imwrite(tmp_path / "he.ome.tif", he, photometric="rgb", metadata=scale)
    adata = AnnData(np.ones((150, 3), np.float32), obsm={"spatial": POS * 4})
    said = "he.ome.tif says that pixels of the image are 1 µm, and they are taken to be 0.25 µm"
    for options in ({}, {"image_mpp": 0.25}):
        with pytest.warns(UserWarning, match=said):
            sg.read(adata, mpp=0.25, image=tmp_path / "he.ome.tif", **options)
    with pytest.warns(UserWarning, match=said):
        sg.SlideImage.open(tmp_path / "he.ome.tif", mpp=0.25)
    for mpp in (1.0, 1.04, 0.96):
        sg.read(adata, mpp=0.25, image=tmp_path / "he.ome.tif", image_mpp=mpp)


@pytest.mark.parametrize(
    ("vendor", "stated"),
    [
        ("xenium", "experiment.xenium says .* 0.2125 µm"),
        ("merscope", "micron_to_mosaic_pixel_transform.csv says"),
        ("spaceranger", "scalefactors_json.json says"),
    ],
)
def test_a_given_scale_far_from_that_of_the_folder_is_said(tmp_path, vendor, stated):
    VENDORS[vendor](place := tmp_path / "slide")
    mpp = sg.read(place).image.mpp
    assert sg.read(place, image_mpp=mpp * 1.02).image.mpp == mpp * 1.02
    with pytest.warns(UserWarning, match=f"{stated}.* taken to be {mpp * 3:.4g} µm: pass"):
        assert sg.read(place, image_mpp=mpp * 3).image.mpp == mpp * 3


def test_a_given_scale_far_from_that_in_an_anndata_is_said(tmp_path):
    Image.fromarray(np.full((1100, 1100, 3), 200, np.uint8)).save(tmp_path / "he.png")
    adata = AnnData(np.ones((150, 3), np.float32), obsm={"spatial": POS})
    adata.uns["image"] = {"file": "he.png", "pixel_size_um": 0.25}
    with pytest.warns(UserWarning, match="cells says .* 0.25 µm, .* taken to be 2 µm"):
        first = sg.read(adata, image=tmp_path / "he.png", image_mpp=2.0)
    first.adata.write_h5ad(tmp_path / "read.h5ad")
    assert sg.read(tmp_path / "read.h5ad").image.mpp == 2.0
    with pytest.warns(UserWarning, match=r"of read.h5ad says .* 2 µm, .* taken to be 0.25 µm"):
        sg.read(tmp_path / "read.h5ad", image_mpp=0.25)


@pytest.mark.parametrize("vendor", ["merscope", "cosmx"])
def test_folders_that_are_called_like_tables_are_none(tmp_path, vendor):
    VENDORS[vendor](tmp_path / vendor)
    whole = sg.read(tmp_path / vendor).pos
    (tmp_path / vendor / "old_detected_transcripts.csv").mkdir()
    (tmp_path / vendor / "old_tx_file.csv").mkdir()
    np.testing.assert_array_equal(sg.read(tmp_path / vendor).pos, whole)


def test_options_are_of_the_command_that_was_typed():
    flags = {"counts_layer": False, "drop_empty": True}
    assert as_typed("pass counts_layer='raw' to read()", flags) == "pass --counts-layer raw"
    assert as_typed("Pass drop_empty=True to read(), or", flags) == "Pass --drop-empty, or"


@pytest.mark.parametrize(
    "files",
    [
        ["GSM5_counts.txt.gz", "GSM5_coords.txt.gz"],
        ["MappedDGEForR.csv", "BeadLocationsForR.csv"],
        ["intensities/p1.csv", "regionprops/p1.csv"],
    ],
)
def test_folders_of_tables_that_no_vendor_writes_are_told_what_to_do(tmp_path, files):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"of no vendor that is known: write an .h5ad .*obsm="):
        sg.read(tmp_path)


def test_cells_in_columns_are_told_from_those_without_places(tmp_path):
    var = pd.DataFrame({"x": POS[:, 0], "y": POS[:, 1]}, [f"c{i}" for i in range(150)])
    AnnData(np.ones((3, 150), np.float32), var=var).write_h5ad(tmp_path / "t.h5ad")
    with pytest.raises(ValueError, match=r"places in var\['x'\] .* genes × cells\? Transpose it"):
        sg.read(tmp_path / "t.h5ad")


def test_an_image_without_a_scale_is_told_of_the_argument_of_read(tmp_path):
    inch = {"unit": "inch", "axes": "YX"}
    pixels = np.full((600, 600), 9, np.uint16)
    tifffile.imwrite(tmp_path / "i.tif", pixels, imagej=True, resolution=(72, 72), metadata=inch)
    adata = AnnData(np.ones((150, 3), np.float32), obsm={"spatial": POS})
    with pytest.raises(ValueError, match="pixel size of i.tif, got none: pass image_mpp="):
        sg.read(adata, image=tmp_path / "i.tif")


def test_a_scale_that_no_microscope_has_is_said(tmp_path):
    Image.fromarray(np.full((600, 600, 3), 200, np.uint8)).save(tmp_path / "he.png")
    adata = AnnData(np.ones((150, 3), np.float32), obsm={"spatial": POS})
    with pytest.warns(
        UserWarning, match="are taken to be 212.5 µm, and those of pictures of slides are"
    ):
        sg.read(adata, image=tmp_path / "he.png", image_mpp=212.5)
    sg.read(adata, image=tmp_path / "he.png", image_mpp=20.0)
