import gzip

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from spatiagraph.data.read import read
from spatiagraph.data.units import neighbor_distance

GENES = ["AXL", "CD3E", "VIM"]
FIELD = np.array([1, 1, 2, 2])
NUMBER = np.array([1, 2, 1, 2])  # starts anew in each field of view
CELLS = ["1_1", "2_1", "1_2", "2_2"]
CENTRES = np.array([[100.0, 100], [200, 130], [4400, 100], [4500, 160]])  # px
COUNTS = np.array([[2, 0, 1], [0, 3, 1], [4, 1, 0], [1, 1, 1]])
PROBES = np.array([0, 1, 0, 2])
MPP = 0.120280945


def write_folder(folder, counts=True, cells=True, molecules=True, positions="px", suffix=""):
    folder.mkdir(parents=True)
    fields = pd.DataFrame({"fov": [1, 2], "x_global_px": [0, 4256], "y_global_px": [0, 0]})
    if positions == "mm":
        fields["x_global_px"] = [0, 9000]  # apart from each other
        fields["x_global_mm"] = fields["x_global_px"] * 0.2 / 1000
    if positions == "prototype":
        fields["x_global_px"] = [0.0, 5472.222]
    fields.to_csv(folder / "S1_fov_positions_file.csv", index=False)
    if counts:
        table = pd.DataFrame(np.c_[COUNTS, PROBES], columns=[*GENES, "NegPrb3"])
        table.insert(0, "fov", FIELD)
        table.insert(1, "cell_ID", NUMBER)
        background = table.iloc[[0]].assign(cell_ID=0, AXL=99)
        table = pd.concat([background, table])
        table.to_csv(folder / f"S1_exprMat_file.csv{suffix}", index=False)
    if cells:
        table = pd.DataFrame({"fov": FIELD, "cell_ID": NUMBER, "Area": [5, 6, 7, 8]})
        table[["CenterX_global_px", "CenterY_global_px"]] = CENTRES
        table[::-1].to_csv(folder / f"S1_metadata_file.csv{suffix}", index=False)
    if molecules:
        row, gene = (a.ravel() for a in np.mgrid[:4, :4])
        many = np.c_[COUNTS, PROBES].ravel()
        row, gene = np.repeat(row, many), np.repeat(gene, many)
        table = pd.DataFrame({"fov": FIELD[row], "cell_ID": NUMBER[row]})
        table[["x_global_px", "y_global_px"]] = CENTRES[row]
        table["z"] = 3
        table["target"] = np.array([*GENES, "NegPrb3"])[gene]
        table = pd.concat([table, table.iloc[:2].assign(cell_ID=0)])
        table.to_csv(folder / f"S1_tx_file.csv{suffix}", index=False)
    return folder


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("matrix", [True, False])
def test_counts_are_the_same_from_the_matrix_and_from_molecules(tmp_path, matrix, suffix):
    slide = read(write_folder(tmp_path / "c", counts=matrix, cells=matrix, suffix=suffix))
    adata = slide.adata[CELLS, GENES]
    assert slide.num_cells == 4  # the background is no cell
    assert slide.num_genes == 3
    assert_array_equal(adata.X.toarray(), COUNTS)
    assert_array_equal(adata.obs["control_counts"], PROBES)
    assert_allclose(adata.obsm["spatial"], CENTRES * MPP)
    assert slide.adata.uns["spatiagraph"]["read"]["controls"] == 1
    assert len(slide.transcripts) == COUNTS.sum() + PROBES.sum() + 2
    assert slide.transcripts["cell_id"].isna().sum() == 2
    assert set(slide.transcripts["cell_id"].dropna()) == set(CELLS)
    assert slide.transcripts["x_um"].max() == pytest.approx(4500 * MPP)
    assert read(tmp_path / "c", transcripts=False).transcripts is None


@pytest.mark.parametrize(
    ("positions", "mpp", "source"),
    [("px", MPP, "4256 px apart"), ("prototype", 0.18, "5472 px apart"), ("mm", 0.2, "S1_fov")],
)
def test_the_size_of_a_pixel_follows_from_the_fields_of_view(tmp_path, positions, mpp, source):
    notes = read(write_folder(tmp_path / "c", positions=positions)).adata.uns["spatiagraph"]["read"]
    assert notes["mpp"] == pytest.approx(mpp)
    assert source in notes["mpp_from"]


@pytest.mark.parametrize("name", ["S1-polygons.csv", "S1_polygons.csv.gz"])
def test_outlines_of_a_folder_are_those_of_cells_of_either_field(tmp_path, name):
    """Numbers of cells start anew in each field; corners are pixels of the whole slide."""
    folder = write_folder(tmp_path / "c")
    reach = np.array([20.0, 30, 40, 50])  # px
    row = np.repeat(np.arange(4), 4)
    step = np.tile([[-1, -1], [1, -1], [1, 1], [-1, 1]], (4, 1)) * reach[row, None]
    table = pd.DataFrame({"fov": FIELD[row], "cellID": NUMBER[row]})
    table[["x_local_px", "y_local_px"]] = step + 500
    table[["x_global_px", "y_global_px"]] = CENTRES[row] + step
    table[::-1].to_csv(folder / name, index=False)
    slide = read(folder, outlines=True)
    found = slide.outlines.areas_um2[slide.adata.obs_names.get_indexer(CELLS)]
    assert_allclose(found, (2 * reach * MPP) ** 2, rtol=1e-6)
    boxes = slide.outlines.boxes
    assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, slide.pos)
    assert read(folder).outlines is None


def test_a_stitched_image_goes_with_a_folder(tmp_path):
    folder = write_folder(tmp_path / "c")
    Image.fromarray(np.resize(np.arange(200, dtype=np.uint8), (60, 600))).save(
        tmp_path / "stitched.png"
    )
    slide = read(folder, image=tmp_path / "stitched.png", image_mpp=1.0)
    assert slide.image.covers(slide.pos).all()
    with pytest.raises(FileNotFoundError, match="one for each field of view. Stitch them"):
        read(folder, image=True)


def drop(name):
    return lambda folder: (folder / name).unlink()


def fill(name, text):
    return lambda folder: (folder / name).write_text(text)


def cut_gzip(folder):
    whole = gzip.compress((folder / "S1_tx_file.csv").read_bytes())
    (folder / "S1_tx_file.csv").unlink()
    (folder / "S1_tx_file.csv.gz").write_bytes(whole[:-30])


def repeat_a_cell(folder):
    table = pd.read_csv(folder / "S1_metadata_file.csv")
    table.iloc[[0, 0, 1, 2, 3]].to_csv(folder / "S1_metadata_file.csv", index=False)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("S1_metadata_file.csv"), "with .*metadata_file.csv, .* got S1_exprMat_file.csv"),
        (drop("S1_fov_positions_file.csv"), r"got no .*fov_positions.*Pass mpp=0.1202.*mpp=0.18"),
        (fill("S1_fov_positions_file.csv", "fov\n1\n"), "one field of view in S1_fov"),
        (
            fill("S1_fov_positions_file.csv", "fov,x_global_px,y_global_px\n1,0,0\n2,300,0\n"),
            "300 px apart in S1_fov_positions_file.csv",
        ),
        (
            fill(
                "S1_metadata_file.csv",
                "fov,cell_ID,CenterX_global_px,CenterY_global_px\n1,1,100,100\n",
            ),
            "each cell of S1_exprMat_file.csv in S1_metadata_file.csv, got none for 3 of 4: '1_2'",
        ),
        (fill("S1_metadata_file.csv", "fov,cell_ID\n1,1\n"), "no CenterX_global_px"),
        (repeat_a_cell, "one row for each cell in S1_metadata_file.csv, got several for 1: '2_2'"),
        (fill("S1_tx_file.csv", "fov,target\n1,VIM\n"), "no x_global_px, y_global_px"),
        (
            fill("S1_exprMat_file.csv", "fov,cell_ID,A\n1,1,2\n1,1,2\n"),
            "unique cells in S1_exprMat",
        ),
        (
            fill("S1_fov_positions_file.csv", "fov,x_global_px,y_global_px\n1,0,0\n2,left,0\n"),
            "'x_global_px' of S1_fov_positions_file.csv, got 'left' in row 1",
        ),
        (
            fill("S1_fov_positions_file.csv", "fov,x_global_px,y_global_px\n1,0,0\n2,4256,-inf\n"),
            "finite numbers in column 'y_global_px' of S1_fov_positions_file.csv, got -inf",
        ),
        (cut_gzip, "readable table, got S1_tx_file.csv.gz"),
    ],
)
def test_damaged_folders_are_refused_naming_the_file(tmp_path, damage, message):
    damage(write_folder(tmp_path / "c"))
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / "c")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("matrix", [True, False])
def test_an_empty_field_does_not_rename_the_other_cells(tmp_path, matrix):
    folder = write_folder(tmp_path / "c", counts=matrix, cells=matrix)
    table = pd.read_csv(folder / "S1_tx_file.csv").astype({"fov": float, "cell_ID": float})
    table.loc[[0, 1], ["fov", "cell_ID"]] = [[np.nan, 1], [1, np.nan]]  # others become floats
    table.to_csv(folder / "S1_tx_file.csv", index=False)
    slide = read(folder)
    assert set(slide.adata.obs_names) == set(CELLS)
    assert set(slide.transcripts["cell_id"].dropna()) == set(CELLS)
    assert slide.transcripts["cell_id"].isna().sum() == 4


@pytest.mark.parametrize(
    ("name", "shape", "molecules", "controls"),
    [("sample_1", (85, 939), 23844, 20), ("sample_2", (96, 892), 7155, 17)],
)
def test_a_folder_of_molecules_opens_once_its_pixel_is_known(
    real_data, name, shape, molecules, controls
):
    folder = real_data / "vendor_folders" / "cosmx_Lung9_Rep1_tiny" / name
    with pytest.raises(ValueError, match="300 px apart .* mpp=0.18 for the prototype"):
        read(folder)
    slide = read(folder, mpp=0.18)
    assert (slide.num_cells, slide.num_genes) == shape
    assert len(slide.transcripts) == molecules
    assert slide.adata.uns["spatiagraph"]["read"]["controls"] == controls
    assert 5 < neighbor_distance(slide.pos) < 15


def write_fields(folder, change):
    """A folder of six fields of view of which the table of places is what ``change`` returns."""
    write_folder(folder)
    column, row = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 0, 0, 1, 1, 1])
    px, mm = np.c_[column, row] * 4256.0, np.c_[column, row] * 4256 * MPP / 1000
    change(px, mm).to_csv(folder / "S1_fov_positions_file.csv", index=False)
    return folder


def table_of(px, mm, names=("X_mm", "Y_mm")):
    fields = pd.DataFrame({"FOV": range(1, 7)})
    if px is not None:
        fields[["x_global_px", "y_global_px"]] = px
    fields[list(names)] = mm
    return fields


@pytest.mark.parametrize(
    "change",
    [
        lambda px, mm: table_of(px, mm),
        lambda px, mm: table_of(px, mm, ("x_global_mm", "y_global_mm")),
        lambda px, mm: table_of(px, mm[:, ::-1] * (-1, 1)),  # the stage lies across the camera
        lambda px, mm: table_of(px, -mm + 3),
        lambda px, mm: table_of(np.r_[px[:5], [[np.nan, np.nan]]], mm),  # not imaged
        lambda px, mm: table_of(None, mm),
        lambda px, mm: table_of(None, mm[:, ::-1] + 8),
    ],
)
def test_fields_in_mm_give_the_scale_whichever_way_the_stage_lies(tmp_path, change):
    folder = write_fields(tmp_path / "c", change)
    notes = read(folder).adata.uns["spatiagraph"]["read"]
    assert notes["mpp"] == pytest.approx(MPP, rel=1e-3)
    assert "S1_fov_positions_file.csv" in notes["mpp_from"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda px, mm: table_of(px, mm / 2), "0.06014 µm per pixel, which no instrument has"),
        (lambda px, mm: table_of(px, mm * 1000), "120.3 µm per pixel, which no instrument has"),
        (lambda px, mm: table_of(px, mm * (1, 2)), "in px and in mm that do not agree"),
        (lambda px, mm: table_of(None, mm / 9), "6 fields of view without x_global_px"),
    ],
)
def test_fields_that_give_no_scale_are_refused_with_the_argument(tmp_path, change, message):
    folder = write_fields(tmp_path / "c", change)
    with pytest.raises(ValueError, match=rf"{message}.*Pass mpp="):
        read(folder)
    assert read(folder, mpp=MPP).num_cells == 4


def test_cells_in_px_and_in_mm_give_the_scale_without_a_table_of_fields(tmp_path):
    folder = write_folder(tmp_path / "c")
    (folder / "S1_fov_positions_file.csv").unlink()
    table = pd.read_csv(folder / "S1_metadata_file.csv")
    px = table[["CenterX_global_px", "CenterY_global_px"]].to_numpy()
    table[["x_slide_mm", "y_slide_mm"]] = px[:, ::-1] * 0.18 / 1000 + 4
    table.to_csv(folder / "S1_metadata_file.csv", index=False)
    assert read(folder).adata.uns["spatiagraph"]["read"]["mpp"] == pytest.approx(0.18)


def in_mm(folder):
    """Metadata as it is exported with places on the slide in mm and none in pixels."""
    path = folder / "S1_metadata_file.csv"
    table = pd.read_csv(path).rename(
        columns={"CenterX_global_px": "x_slide_mm", "CenterY_global_px": "y_slide_mm"}
    )
    table[["x_slide_mm", "y_slide_mm"]] *= MPP / 1000
    table.to_csv(path, index=False)
    return folder


@pytest.mark.parametrize("positions", ["px", "none"])
def test_cells_whose_places_are_in_mm_alone_are_placed(tmp_path, positions):
    folder = in_mm(write_folder(tmp_path / "c", molecules=False))
    if positions == "none":
        (folder / "S1_fov_positions_file.csv").unlink()
    slide = read(folder)
    assert_allclose(slide.adata[CELLS].obsm["spatial"], CENTRES * MPP)
    assert "mm of S1_metadata_file.csv" in slide.adata.uns["spatiagraph"]["read"]["mpp_from"]
    with pytest.raises(ValueError, match="Expected no mpp with x_slide_mm, y_slide_mm"):
        read(folder, mpp=0.12)


def test_molecules_in_pixels_do_not_go_with_cells_in_mm(tmp_path):
    folder = in_mm(write_folder(tmp_path / "c"))
    with pytest.warns(UserWarning, match="S1_tx_file.csv is left out"):
        assert read(folder).transcripts is None
    assert read(folder, transcripts=False).num_cells == 4


def test_places_in_mm_that_are_none_are_refused(tmp_path):
    folder = in_mm(write_folder(tmp_path / "c", molecules=False))
    path = folder / "S1_metadata_file.csv"
    table = pd.read_csv(path)
    table[["x_slide_mm", "y_slide_mm"]] *= 100
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match=r"apart, but .* from mm of S1_metadata_file\.csv"):
        read(folder)
