"""What tables and dictionaries hold can be written, or is named before anything is."""

import datetime
import warnings
from decimal import Decimal
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.sparse import coo_matrix

from spatiagraph.data import Slide
from spatiagraph.data.h5ad_file import write_h5ad
from spatiagraph.data.read import read
from spatiagraph.data.writable import make_values_writable, plain_names
from spatiagraph.data.writing import write

GAPS = [True, None, False, True]
NOW = datetime.datetime(2024, 5, 1, 12, 30)


def cells() -> AnnData:
    adata = AnnData(
        np.ones((4, 2), np.float32),
        obs=pd.DataFrame(index=list("abcd")),
        var=pd.DataFrame(index=["G1", "G2"]),
    )
    adata.obsm["spatial"] = np.array([[0.0, 0], [8, 3], [2, 9], [11, 12]])
    return adata


def again(adata: AnnData, path: Path) -> tuple[AnnData, list[str]]:
    """What is read of what was written, and the warnings."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        write_h5ad(adata, path)
    said = [str(w.message) for w in heard if issubclass(w.category, UserWarning)]  # not pandas 3
    return anndata.read_h5ad(path), said


SILENT = {
    "flags with gaps": (pd.array(GAPS, dtype=object), pd.array(GAPS, dtype="boolean")),
    "whole numbers with gaps": (
        pd.array([1, None, 2, 3], dtype=object),
        pd.array([1, None, 2, 3], dtype="Int64"),
    ),
    "numbers with gaps": (pd.array([1.5, None, 2, 3], dtype=object), [1.5, np.nan, 2, 3]),
    "pandas' floats": (pd.array([1.5, None, 2, 3], dtype="Float64"), [1.5, np.nan, 2, 3]),
    "decimals": (pd.array([Decimal("1.5")] * 4, dtype=object), [1.5] * 4),
    "nothing": (np.array([None] * 4, dtype=object), [np.nan] * 4),
    "sparse": (pd.arrays.SparseArray([1, 0, 0, 1]), [1, 0, 0, 1]),
    "text with gaps": (np.array(["x", None, "y", "z"], dtype=object), ["x", np.nan, "y", "z"]),
    "pandas' text": (pd.array(["x", "v", "y", "z"], dtype="string"), ["x", "v", "y", "z"]),
    "text in bytes": (np.array([b"x"] * 4, dtype=object), ["x"] * 4),
    "zero bytes": (np.array(["x\0", "v", "y", "z"], dtype=object), ["x", "v", "y", "z"]),
}
if int(pd.__version__.split(".")[0]) < 3:  # which refuses it itself
    half = np.array(["\ud800", "v", "y", "z"], dtype=object)
    SILENT["half a character"] = (half, ["?", "v", "y", "z"])
TEXT = {
    "dates": (pd.to_datetime(["2020-01-01"] * 4), ["2020-01-01 00:00:00"] * 4),
    "intervals": (pd.cut(np.arange(4), [-1, 1, 3]), ["(-1, 1]", "(-1, 1]", "(1, 3]", "(1, 3]"]),
    "several kinds": (np.array([1, "x", True, 2.5], dtype=object), ["1", "x", "True", "2.5"]),
    "lists": (pd.Series([[1], [2], [1], None]).to_numpy(), ["[1]", "[2]", "[1]", np.nan]),
    "huge numbers": (np.array([2**70, 1, 2, 3], dtype=object), [str(2**70), "1", "2", "3"]),
    "categories of several kinds": (pd.Categorical([1, "x", 1, None]), ["1", "x", "1", np.nan]),
}


@pytest.mark.parametrize("where", ["obs", "obsm", "raw"])
@pytest.mark.parametrize("name", [*SILENT, *TEXT])
def test_columns_come_back_from_a_file(tmp_path, name, where):
    values, expected = (SILENT | TEXT)[name]
    adata = cells()
    if where == "obs":
        adata.obs["v"] = values
    elif where == "obsm":
        adata.obsm["t"] = pd.DataFrame({"v": values}, index=adata.obs_names)
    else:
        wide = AnnData(np.ones((4, 4), np.float32), obs=adata.obs)
        wide.var["v"] = values
        adata.raw = wide
    found, heard = again(adata, tmp_path / "a.h5ad")
    table = {"obs": found.obs, "obsm": found.obsm.get("t"), "raw": found.raw and found.raw.var}
    column = table[where]["v"]
    got = [np.nan if v is pd.NA else v for v in column.astype(object)]
    want = [np.nan if v is pd.NA or v is None else v for v in pd.Series(expected).astype(object)]
    pd.testing.assert_series_equal(pd.Series(got), pd.Series(want), check_dtype=False)
    assert bool(heard) == (name in TEXT), heard


def test_flags_and_numbers_with_gaps_stay_what_they_are(tmp_path):
    adata = cells()
    adata.obs["flag"] = pd.array(GAPS, dtype=object)
    adata.obs["number"] = pd.array([1, None, 2, 3], dtype=object)
    found, _ = again(adata, tmp_path / "a.h5ad")
    assert found.obs.dtypes.astype(str).tolist() == ["boolean", "Int64"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, 2), [1, 2]),
        ({2, 1}, [1, 2]),
        ([[1], [2, 3]], "[[1], [2, 3]]"),
        ([{"a": 1, "b": Path("x")}], '[{"a": 1, "b": "x"}]'),
        ([1, "a", None], '[1, "a", null]'),
        ({1: {2: "x"}, (3, 4): [1.5]}, {"1": {"2": "x"}, "(3, 4)": [1.5]}),
        ({"a": {"b": {"c": {1, 2}}}}, {"a": {"b": {"c": [1, 2]}}}),
        (Path("a") / "b", "a/b"),
        (NOW, "2024-05-01 12:30:00"),
        (pd.Timestamp("2020-01-01"), "2020-01-01 00:00:00"),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Index(["a", "b"]), ["a", "b"]),
        (np.array(["a", 1], dtype=object), '["a", 1]'),
        (np.array(["2020-01-01"], dtype="M8[D]"), ["2020-01-01"]),
        (2**70, str(2**70)),
        (1 + 2j, "(1+2j)"),
        (b"ab", "ab"),
    ],
)
def test_dictionaries_come_back_from_a_file(tmp_path, value, expected):
    adata = cells()
    adata.uns["kept"] = {"n": 1, "image": np.eye(2)}
    adata.uns["v"] = {"inside": value}
    found, _ = again(adata, tmp_path / "a.h5ad")

    def plain(thing):
        if isinstance(thing, dict):
            return {k: plain(v) for k, v in thing.items()}
        return thing.tolist() if isinstance(thing, np.ndarray) else thing

    assert plain(found.uns["v"]["inside"]) == expected
    assert plain(found.uns["kept"]) == {"n": 1, "image": [[1, 0], [0, 1]]}


def test_sparse_matrices_of_other_layouts_are_written(tmp_path):
    adata = cells()
    adata.uns["m"] = coo_matrix(np.eye(3))
    found, _ = again(adata, tmp_path / "a.h5ad")
    np.testing.assert_array_equal(found.uns["m"].toarray(), np.eye(3))


@pytest.mark.parametrize(
    ("put", "message"),
    [
        (lambda a: a.uns.update(v={"f": print}), r"uns\['v'\]\['f'\], got builtin.*del adata\.uns"),
        (lambda a: a.uns.update(v=[object()]), r"numbers or text in uns\['v'\], got object"),
        (lambda a: a.uns.update(v={1: "a", "1": "b"}), r"different keys in uns\['v'\]"),
        (
            lambda a: a.obsm.update(v=np.array([["x", 1]] * 4, dtype=object)),
            r"numbers in obsm\['v'\], got int, str",
        ),
        (
            lambda a: setattr(a, "obs", pd.DataFrame(1, index=a.obs_names, columns=["x", "x"])),
            "different columns in obs, got several called 'x'",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_what_no_file_can_hold_is_named_and_the_old_file_stays(tmp_path, put, message, suffix):
    if suffix == ".zarr":
        pytest.importorskip("spatialdata")
    slide = Slide(cells(), slide_id="a")
    write(slide, tmp_path / f"a{suffix}")
    put(slide.adata)
    with pytest.raises(ValueError, match=message):
        write(slide, tmp_path / f"a{suffix}")
    assert read(tmp_path / f"a{suffix}").num_cells == 4
    assert len(list(tmp_path.iterdir())) == 1


NAMES = ["log/norm", "a/b/c", "/", "_index", "", ".", "..", 3, "Área µm²", "x y"]


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_a_file_cannot_hold_are_others_there(tmp_path, name, suffix):
    if suffix == ".zarr":
        pytest.importorskip("spatialdata")
    adata = cells()
    adata.obs[name] = [1, 2, 3, 4]
    if isinstance(name, str):
        adata.layers[name] = adata.X * 2
        adata.obsm[name] = np.ones((4, 3))
        adata.uns[name] = {name: 5}
    path = tmp_path / f"a{suffix}"
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        write(Slide(adata, slide_id="a"), path)
    heard = [w for w in heard if issubclass(w.category, UserWarning)]  # not those of pandas 3
    (new,) = plain_names([name], strict=suffix == ".zarr").values()
    assert bool(heard) == (new != name)
    assert all(repr(name) in str(w.message) and repr(new) in str(w.message) for w in heard)
    found = read(path).adata
    assert found.obs[new].tolist() == [1, 2, 3, 4]
    if isinstance(name, str):
        assert found.layers[new].sum() == 16
        assert found.obsm[new].shape == (4, 3)
        assert list(found.uns[new].values()) == [5]


def test_names_stay_different_from_each_other():
    assert plain_names(["a_b", "a/b", "a:b"]) == {"a_b": "a_b", "a/b": "a_b_2", "a:b": "a:b"}
    assert plain_names(["Area", "area"], strict=True) == {"Area": "Area", "area": "area_2"}
    assert plain_names(["Area", "area"]) == {"Area": "Area", "area": "area"}


def test_an_index_called_like_a_column_is_written(tmp_path):
    adata = cells()
    adata.obs["cell"] = [1, 2, 3, 4]
    adata.obs.index.name = "cell"
    found, _ = again(adata, tmp_path / "a.h5ad")
    assert found.obs["cell"].tolist() == [1, 2, 3, 4]
    assert found.obs_names.tolist() == list("abcd")


def test_a_column_called_region_is_not_lost_in_a_store(tmp_path):
    pytest.importorskip("spatialdata")
    adata = cells()
    adata.obs["region"] = ["cortex", "cortex", "CA1", "CA1"]
    adata.obs["instance_id"] = [4, 5, 6, 7]
    for _ in range(2):  # and not when it is written once more
        write(Slide(adata, slide_id="a"), tmp_path / "a.zarr")
        adata = read(tmp_path / "a.zarr").adata
        assert adata.obs["region"].tolist() == ["cortex", "cortex", "CA1", "CA1"]
        assert adata.obs["instance_id"].tolist() == [4, 5, 6, 7]


def test_what_becomes_text_is_told_when_a_slide_is_read(tmp_path):
    adata = cells()
    adata.obs["fine"] = pd.Categorical(["x", "y", "x", None])
    assert make_values_writable(adata) == []
    assert adata.obs["fine"].dtype == "category"
    adata.obs["when"] = pd.to_datetime(["2020-01-01"] * 4)
    assert make_values_writable(adata) == ["obs['when'] (Timestamp) as text"]
    assert make_values_writable(adata) == []


def test_names_of_several_levels_become_text(tmp_path):
    adata = AnnData(np.ones((3, 2), np.float32))
    levels = pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])
    adata.uns["table"] = pd.DataFrame({"v": [1, 2]}, index=levels)
    adata.uns["days"] = pd.DataFrame({"v": [1]}, index=pd.DatetimeIndex(["2020-01-02"]))
    adata.uns["wide"] = pd.DataFrame([[1, 2]], columns=levels)
    with pytest.warns(UserWarning, match="2 levels"):
        write_h5ad(adata, tmp_path / "a.h5ad")
    found = anndata.read_h5ad(tmp_path / "a.h5ad").uns
    assert found["table"].index.tolist() == ["a, 1", "b, 2"]
    assert found["days"].index.tolist() == ["2020-01-02 00:00:00"]
    assert found["wide"].columns.tolist() == ["a, 1", "b, 2"]


def test_an_anndata_in_notes_is_written_and_read(tmp_path):
    adata = AnnData(np.ones((3, 2), np.float32), uns={"old": AnnData(np.zeros((2, 2)))})
    adata.obsm["spatial"] = np.array([[0.0, 0], [9, 0], [0, 9]])
    write_h5ad(adata, tmp_path / "a.h5ad")
    assert read(tmp_path / "a.h5ad").adata.uns["old"].shape == (2, 2)
