import inspect
import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal

from spatiagraph.data.read import read
from spatiagraph.data.units import neighbor_distance

GENES = ["Acta2", "Gad1", "Sox9"]
CENTRES = np.array([[10.0, 10], [22, 10], [10, 22], [22, 24]]) + 500
CELLS = [614155123100000001 + i for i in range(4)]  # beyond what a float can hold
COUNTS = np.array([[2, 0, 1], [0, 3, 1], [4, 1, 0], [1, 1, 1]])
BLANKS = np.array([0, 1, 0, 2])
TRANSFORM = [[5.0, 0, -2450], [0, 5.0, -2400], [0, 0, 1]]  # 0.2 µm per pixel


def molecules(cell_id=True):
    """A molecule for each count, in plane 0 or 1, at its cell's centre; two are in no cell."""
    row, gene = (a.ravel() for a in np.mgrid[:4, :4])
    many = np.c_[COUNTS, BLANKS].ravel()
    row, gene = np.repeat(row, many), np.repeat(gene, many)
    table = pd.DataFrame(
        {
            "global_x": CENTRES[row, 0],
            "global_y": CENTRES[row, 1],
            "global_z": np.arange(len(row)) % 2 * 1.0,
            "gene": np.array([*GENES, "Blank-3"])[gene],
            "cell_id": np.array(CELLS)[row],
        }
    )
    away = table.iloc[:2].assign(global_x=900.0, cell_id=-1)
    table = pd.concat([table, away], ignore_index=True)
    return table if cell_id else table.drop(columns="cell_id")


def write_folder(folder, counts=True, cells=True, cell_id=True):
    """The layout of the instrument."""
    (folder / "images").mkdir(parents=True)
    if counts:
        table = pd.DataFrame(np.c_[COUNTS, BLANKS], columns=[*GENES, "Blank-3"])
        table.insert(0, "cell", CELLS)
        table.to_csv(folder / "cell_by_gene.csv", index=False)
    if cells:
        table = pd.DataFrame(CENTRES, CELLS, columns=["center_x", "center_y"])
        table["volume"] = [100.0, 200, 300, 400]
        table[::-1].rename_axis("EntityID").to_csv(folder / "cell_metadata.csv")
    molecules(cell_id).to_csv(folder / "detected_transcripts.csv")
    matrix = folder / "images" / "micron_to_mosaic_pixel_transform.csv"
    np.savetxt(matrix, TRANSFORM)
    for stain in ("DAPI", "PolyT"):
        for z in range(3):
            pixels = np.full((400, 400), 10 * z + (stain == "PolyT"), np.uint16)
            pixels[0, 0] = 60000
            tifffile.imwrite(folder / "images" / f"mosaic_{stain}_z{z}.tif", pixels)
    return folder


def write_outlines(folder):
    """Squares of 8 µm in two planes, twice as large in the second."""
    (folder / "cell_boundaries").mkdir()
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])
    with h5py.File(folder / "cell_boundaries" / "feature_data_0.hdf5", "w") as file:
        for cell, centre in zip(CELLS, CENTRES, strict=True):
            for z in range(2):
                ring = file.create_group(f"featuredata/{cell}/zIndex_{z}/p_0")
                ring["coordinates"] = (centre + corners * (1 + z))[None]
    return folder


def test_counts_cells_and_molecules_come_together(tmp_path):
    slide = read(write_folder(tmp_path / "m"))
    assert slide.adata.obs_names.tolist() == [str(c) for c in CELLS]
    assert slide.symbols == GENES
    assert_array_equal(slide.counts.toarray(), COUNTS)
    assert_array_equal(slide.adata.obs["control_counts"], BLANKS)
    assert slide.adata.uns["spatiagraph"]["read"]["controls"] == 1
    assert_allclose(slide.pos, CENTRES)
    assert_array_equal(slide.adata.obs["volume"], [100, 200, 300, 400])
    assert len(slide.transcripts) == COUNTS.sum() + BLANKS.sum() + 2
    assert slide.transcripts["cell_id"].isna().sum() == 2
    assert read(tmp_path / "m", transcripts=False).transcripts is None


def test_the_mosaic_lies_where_the_matrix_puts_it(tmp_path):
    slide = read(write_folder(tmp_path / "m"))
    assert slide.image.mpp == pytest.approx(0.2)
    assert slide.image.origin_um == pytest.approx((490, 480))
    assert slide.image.path.name == "mosaic_DAPI_z1.tif"  # the middle plane
    assert slide.image.covers(slide.pos).all()
    assert read(tmp_path / "m", image="PolyT").image.path.name == "mosaic_PolyT_z1.tif"
    file = tmp_path / "m" / "images" / "mosaic_PolyT_z0.tif"
    assert read(tmp_path / "m", image=file).image.origin_um == pytest.approx((490, 480))
    assert read(tmp_path / "m", image=False).image is None
    with pytest.raises(FileNotFoundError, match="mosaic_Actin_z.*got stains DAPI, PolyT"):
        read(tmp_path / "m", image="Actin")


@pytest.mark.parametrize("cells", [True, False])
@pytest.mark.parametrize("cell_id", [True, False])
def test_counts_are_the_same_from_the_matrix_molecules_and_outlines(tmp_path, cells, cell_id):
    pytest.importorskip("shapely")
    folder = write_outlines(
        write_folder(tmp_path / "m", counts=False, cells=cells, cell_id=cell_id)
    )
    slide = read(folder)
    assert slide.adata.obs_names.tolist() == [str(c) for c in CELLS]
    assert_array_equal(slide.counts.toarray(), COUNTS)
    assert_array_equal(slide.adata.obs["control_counts"], BLANKS)
    assert_allclose(slide.pos, CENTRES)


def drop(name):
    return lambda folder: (folder / name).unlink()


def fill(name, text):
    return lambda folder: (folder / name).write_text(text)


def forget_a_cell(folder):
    table = pd.read_csv(folder / "cell_metadata.csv")
    table.iloc[:3].to_csv(folder / "cell_metadata.csv", index=False)


def misplace_a_cell(folder):
    table = pd.read_csv(folder / "cell_metadata.csv").astype({"center_x": object})
    table.loc[1, "center_x"] = "left"
    table.to_csv(folder / "cell_metadata.csv", index=False)


def cut_the_last_row(folder):
    file = folder / "cell_by_gene.csv"
    file.write_text(file.read_text().rstrip()[:-4])


def turn(folder):
    matrix = np.array(TRANSFORM)[[1, 0, 2]]
    np.savetxt(folder / "images" / "micron_to_mosaic_pixel_transform.csv", matrix)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("cell_metadata.csv"), "cell_metadata.csv or outlines .* found neither"),
        (forget_a_cell, "each cell of cell_by_gene.csv in cell_metadata.csv, got none for 1 of 4"),
        (cut_the_last_row, "readable table, got cell_by_gene.csv .a last row of 3 fields of 5"),
        (fill("cell_by_gene.csv", "cell,Gad1\n7,many\n"), "column 'Gad1' .*, got 'many' in row 0"),
        (fill("cell_by_gene.csv", "cell\n7\n"), "a column for each gene in cell_by_gene.csv"),
        (fill("cell_by_gene.csv", ""), "readable table, got cell_by_gene.csv"),
        (fill("cell_metadata.csv", "EntityID,x\n1,2\n"), "no center_x, center_y"),
        (fill("detected_transcripts.csv", "gene,x\nA,1\n"), "no global_x, global_y"),
        (drop("images/micron_to_mosaic_pixel_transform.csv"), "found none: .*image=False"),
        (fill("images/micron_to_mosaic_pixel_transform.csv", "1 2\n3 4\n"), r"3 × 3 .*\[2, 2\]"),
        (turn, "to scale and shift, got a rotation"),
        (fill("cell_by_gene.csv", "cell,Gad1\n"), "a row for each cell in cell_by_gene.csv"),
        (fill("cell_by_gene.csv", "cell,A,A\n7,1,2\n"), "cell_by_gene.csv .two columns .* A"),
        (fill("cell_by_gene.csv", "cell,A\n7,1\n7,2\n"), "unique cell ids in cell_by_gene.csv"),
        (misplace_a_cell, "'center_x' of cell_metadata.csv, got 'left' in row 614155123100000003"),
        (fill("x_cell_by_gene.csv", ""), "one .*cell_by_gene.csv .*: make a folder for each"),
    ],
)
def test_damaged_folders_are_refused_naming_the_file(tmp_path, damage, message):
    damage(write_folder(tmp_path / "m"))
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_a_matrix_may_be_parquet(tmp_path):
    folder = write_folder(tmp_path / "m")
    table = pd.read_csv(folder / "cell_by_gene.csv")
    table.set_index("cell").to_parquet(folder / "cell_by_gene.parquet")
    (folder / "cell_by_gene.csv").unlink()
    with pytest.raises(ValueError, match="first column of cell_by_gene.parquet .* got 'Acta2'"):
        read(folder)
    table.to_parquet(folder / "cell_by_gene.parquet")
    assert_array_equal(read(folder).counts.toarray(), COUNTS)


def test_ids_that_lost_digits_beside_empty_fields_are_refused(tmp_path):
    folder = write_folder(tmp_path / "m", counts=False)
    table = pd.read_csv(folder / "detected_transcripts.csv")
    table["cell_id"] = table["cell_id"].astype(object).where(table["cell_id"] != -1, None)
    table.to_csv(folder / "detected_transcripts.csv")
    with pytest.raises(ValueError, match=r"below 2\^53 in column 'cell_id' .* Fill the empty"):
        read(folder)


def test_molecules_without_cells_or_outlines_are_refused(tmp_path):
    write_folder(tmp_path / "m", counts=False, cell_id=False)
    with pytest.raises(ValueError, match="detected_transcripts.csv with cell_id or outlines"):
        read(tmp_path / "m")


def test_outlines_that_cannot_be_read_are_refused(tmp_path):
    pytest.importorskip("shapely")
    folder = write_folder(tmp_path / "m", counts=False, cells=False, cell_id=False)
    write_outlines(folder)
    (folder / "cell_boundaries" / "feature_data_0.hdf5").write_text("no HDF5")
    with pytest.raises(ValueError, match="HDF5 file, got feature_data_0.hdf5, .*zIndex_"):
        read(folder)


def test_merscope_is_in_um_already(tmp_path):
    with pytest.raises(ValueError, match="no mpp or pitch_um"):
        read(write_folder(tmp_path / "m"), mpp=0.108)


def test_a_folder_reads_like_spatialdata_io(tmp_path):
    spatialdata_io = pytest.importorskip("spatialdata_io")
    if "dtype" not in inspect.signature(anndata.AnnData).parameters:
        pytest.skip("theirs does not run with this anndata")
    folder = write_folder(tmp_path / "m")
    cells = pd.read_csv(folder / "cell_metadata.csv")[::-1]  # theirs needs the order of the counts
    cells.to_csv(folder / "cell_metadata.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = spatialdata_io.merscope(
            folder,
            z_layers=None,
            region_name="r",
            slide_name="s",
            transcripts=False,
            cells_boundaries=False,
            mosaic_images=False,
        ).tables["table"]
    ours = read(folder)
    assert_array_equal(theirs[ours.adata.obs_names, GENES].X, ours.counts.toarray())
    assert_allclose(theirs[ours.adata.obs_names].obsm["spatial"], ours.pos)


# Real folders -----------------------------------------------------------------------------------


def test_outlines_give_the_counts_of_vizgen_s_own_tool(real_data, tmp_path):
    pytest.importorskip("shapely")
    folder = real_data / "vendor_folders" / "merscope_vpt_liver"
    with pytest.warns(UserWarning, match="Dropped 42 of 94 cells"):
        theirs = read(folder, drop_empty=True)
    for name in ("detected_transcripts.csv", "cells_cellpose.parquet"):
        (tmp_path / name).symlink_to((folder / name).resolve())
    ours = read(tmp_path)  # without cell_by_gene.csv
    assert ours.num_cells == theirs.num_cells == 52
    part = theirs.adata[ours.adata.obs_names, ours.symbols]
    assert_array_equal(ours.counts.toarray(), part.X.toarray())
    assert theirs.adata.uns["spatiagraph"]["read"]["controls"] == 15
    assert theirs.image.mpp == pytest.approx(0.108, rel=1e-3)
    assert theirs.image.covers(theirs.pos).all()
    assert theirs.image.extent_um == pytest.approx((13.55, -13.13, 68.85, 42.17), abs=0.01)


def test_a_folder_of_molecules_and_outlines_opens(real_data):
    pytest.importorskip("shapely")
    slide = read(real_data / "vendor_folders" / "merscope_HumanOvarianCancer_tiny")
    assert (slide.num_cells, slide.num_genes, len(slide.transcripts)) == (24, 412, 15160)
    assert slide.adata.uns["spatiagraph"]["read"]["controls"] == 33
    assert 2 < neighbor_distance(slide.pos) < 60


@pytest.mark.parametrize("name", ["nan", "NA", "None", "null"])
def test_a_gene_called_like_a_missing_value_is_a_gene(tmp_path, name):
    folder = write_folder(tmp_path / "s")
    for file in ("detected_transcripts.csv", "cell_by_gene.csv"):
        (folder / file).write_text((folder / file).read_text().replace("Sox9", name))
    slide = read(folder, image=False)
    assert_array_equal(slide.counts.toarray(), COUNTS)
    assert slide.symbols == ["Acta2", "Gad1", name]
    assert (slide.transcripts["gene"] == name).sum() == COUNTS[:, 2].sum()
