import anndata
import numpy as np
import pandas as pd
import pytest

import spatiagraph as sg
from spatiagraph.data.axes import axis_pairs, x_before_y


@pytest.mark.parametrize(
    ("names", "x", "unit"),
    [
        (["x", "y"], "x", None),
        (["Y", "X"], "X", None),
        (["CenterX_global_px", "CenterY_global_px"], "CenterX_global_px", "px"),
        (["Centroid X µm", "Centroid Y µm"], "Centroid X µm", "um"),
        (["X_centroid", "Y_centroid"], "X_centroid", None),
        (["xcoord", "ycoord"], "xcoord", None),
        (["x_slide_mm", "y_slide_mm"], "x_slide_mm", "mm"),
        (["pxl_row_in_fullres", "pxl_col_in_fullres"], "pxl_col_in_fullres", "px"),
        (["centroid-0", "centroid-1"], "centroid-1", None),  # rows first, as scikit-image
        (["imagerow", "imagecol"], "imagecol", "px"),
    ],
)
def test_coordinates_are_known_by_the_names_of_their_columns(names, x, unit):
    (pair,) = axis_pairs(["area", *names, "CD3"])
    assert (pair.x, pair.unit) == (x, unit)


@pytest.mark.parametrize("names", [["x_umap", "y_umap"], ["array_row", "array_col"], ["x"], ["xy"]])
def test_other_columns_are_no_coordinates(names):
    assert axis_pairs(names) == []


def test_x_comes_first_where_names_say_so():
    assert x_before_y(["y", "x"]) == [1, 0]
    assert x_before_y(["x", "y"]) == [0, 1]
    assert x_before_y(["a", "b"]) == [0, 1]


POS = np.random.default_rng(0).uniform(0, 1, (200, 2)) * (300, 200)


def cells(pos=POS, **obs):
    adata = anndata.AnnData(
        np.ones((200, 3), np.float32),
        obs=pd.DataFrame(obs, index=[f"c{i}" for i in range(200)]),
    )
    adata.obsm["spatial"] = pos
    return adata


def test_a_table_of_coordinates_is_read_by_its_names():
    table = pd.DataFrame(POS[:, ::-1], index=[f"c{i}" for i in range(200)], columns=["y", "x"])
    np.testing.assert_allclose(sg.read(cells(table)).pos, POS)


def test_a_third_coordinate_that_is_one_plane_is_left_out():
    np.testing.assert_allclose(sg.read(cells(np.c_[POS, np.full(200, 7.0)])).pos, POS)
    with pytest.raises(ValueError, match=r"got \[200, 3\]"):
        sg.read(cells(np.c_[POS, np.arange(200.0)]))


@pytest.mark.parametrize("as_text", [str, "category"])
def test_columns_of_text_that_are_numbers_are_coordinates(as_text):
    adata = cells(cx=POS[:, 0], cy=POS[:, 1])
    adata.obs["cx"] = adata.obs["cx"].astype(as_text)
    np.testing.assert_allclose(sg.read(adata, x_key="cx", y_key="cy").pos, POS)
    with pytest.raises(ValueError, match="'cx' for both x_key and y_key"):
        sg.read(adata, x_key="cx", y_key="cx")


def test_text_that_is_no_number_is_named():
    adata = cells(cx=["12", "left"] * 100, cy=POS[:, 1])
    with pytest.raises(ValueError, match=r"obs\['cx'\], got 'left' in row 1 'c1'"):
        sg.read(adata, x_key="cx", y_key="cy")


def test_coordinates_of_no_cell_are_no_cells_to_drop():
    with pytest.raises(ValueError, match="none for all of 200 cells"):
        sg.read(cells(POS * np.nan), drop_unplaced=True)


def test_columns_of_coordinates_are_offered_where_obsm_has_none():
    adata = cells(x_um=POS[:, 0], y_um=POS[:, 1])
    del adata.obsm["spatial"]
    with pytest.raises(ValueError, match="Pass x_key='x_um' and y_key='y_um'"):
        sg.read(adata)


def test_the_first_coordinate_is_y_if_asked_for():
    np.testing.assert_allclose(sg.read(cells(), swap_xy=True).pos, POS[:, ::-1])
