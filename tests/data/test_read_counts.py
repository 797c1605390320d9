"""Tables of counts that are read some rows at a time, with whatever pandas and Python are there."""

import gzip
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spatiagraph.data.molecules.table import MoleculeTable
from spatiagraph.data.read import tables
from spatiagraph.data.read.tables import read_table

COUNTS = np.random.default_rng(0).poisson(2.0, (11, 3))
GENES = ["Gad1", "Sst", "Vip"]


read_counts = partial(tables.read_counts, values_at_once=12)
"""Pieces of four rows of three genes."""


def write(path, frame):
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        text = frame.to_csv(index=False).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def counts(**more):
    names = [f"c{i}" for i in range(len(COUNTS))]
    return pd.DataFrame({"cell": names, **dict(zip(GENES, COUNTS.T, strict=True)), **more})


KINDS = pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.parquet"])


@KINDS
def test_pieces_are_joined_in_order(tmp_path, name):
    ids, adata = read_counts(write(tmp_path / name, counts()), ["cell"])
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    assert adata.var_names.tolist() == GENES
    assert ids["cell"].tolist() == [f"c{i}" for i in range(11)]
    assert ids.index.tolist() == list(range(11))


@pytest.mark.parametrize("kind", ["object", "string", "string[pyarrow]", "category"])
def test_names_may_be_text_of_any_kind(tmp_path, kind):
    path = write(tmp_path / "c.parquet", counts().astype({"cell": kind}))
    ids, adata = read_counts(path, ["cell"])
    assert ids["cell"].astype(str).tolist() == [f"c{i}" for i in range(11)]
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.string_view()])
def test_names_may_be_any_text_of_arrow(tmp_path, text):
    table = pa.table({"cell": pa.array(["a", "b"], pa.string()).cast(text), "Gad1": [1, 2]})
    pq.write_table(table, tmp_path / "c.parquet")
    ids, adata = read_counts(tmp_path / "c.parquet", ["cell"])
    assert ids["cell"].tolist() == ["a", "b"]
    assert adata.X.toarray().tolist() == [[1], [2]]


@KINDS
def test_ids_without_a_value_stay_missing_and_counts_are_refused(tmp_path, name):
    ids, _ = read_counts(
        write(tmp_path / name, counts(fov=[1.0, None] * 5 + [2.0])), ["cell", "fov"]
    )
    assert ids["fov"].isna().tolist() == [False, True] * 5 + [False]
    frame = counts()
    frame["Sst"] = frame["Sst"].astype("Int64")
    frame.loc[6, "Sst"] = pd.NA
    with pytest.raises(ValueError, match=rf"{name}, got none in 1 rows"):
        read_counts(write(tmp_path / name, frame), ["cell"])


@KINDS
@pytest.mark.parametrize("kind", ["Int64", "Float64", "uint16", "float32"])
def test_counts_may_be_numbers_of_any_kind(tmp_path, name, kind):
    frame = counts().astype(dict.fromkeys(GENES, kind))
    _, adata = read_counts(write(tmp_path / name, frame), ["cell"])
    np.testing.assert_array_equal(adata.X.toarray(), COUNTS)
    assert adata.X.dtype == np.float32


@KINDS
def test_text_among_counts_is_named_with_its_column(tmp_path, name):
    frame = counts().astype({"Vip": object})
    frame["Vip"] = frame["Vip"].astype(str)
    frame.loc[9, "Vip"] = "many"
    with pytest.raises(ValueError, match=f"'Vip' of {name}, got 'many'"):
        read_counts(write(tmp_path / name, frame), ["cell"])


@pytest.mark.parametrize("zipped", ["", ".gz"])
def test_decimal_commas_and_thousands_are_those_of_a_table_read_whole(tmp_path, zipped):
    rows = [f"c{i};{i}.234,5;1.{i}00" for i in range(1, 9)]
    text = "\n".join(["cell;Gad1;Sst", *rows]) + "\n"
    path = tmp_path / f"c.csv{zipped}"
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    ids, adata = read_counts(path, ["cell"])
    wanted = [[i * 1000 + 234.5, 1000 + i * 100] for i in range(1, 9)]
    np.testing.assert_array_equal(adata.X.toarray(), wanted)
    np.testing.assert_array_equal(read_table(path, needed=["Gad1", "Sst"])[["Gad1", "Sst"]], wanted)
    assert ids["cell"].tolist() == [f"c{i}" for i in range(1, 9)]


def test_what_was_read_may_be_written_to(tmp_path):
    """Copy-on-write hands out arrays that are read-only."""
    ids, adata = read_counts(write(tmp_path / "c.parquet", counts()), ["cell"])
    ids["cell"] = ids["cell"] + "!"
    adata.X.data[:] = 1
    assert adata.X.data.flags.writeable
    assert ids["cell"].iloc[-1] == "c10!"


@KINDS
def test_molecules_are_read_piece_by_piece(tmp_path, name):
    frame = pd.DataFrame(
        {
            "x": np.arange(9.0),
            "y": np.arange(9.0),
            "gene": pd.array(["Gad1", "Sst", "nan"] * 3, "string"),
            "cell_id": pd.array(["c1", None, "c2"] * 3, "string"),
        }
    )
    table = MoleculeTable(write(tmp_path / name, frame), batch_size=4)
    found = list(table.batches())
    np.testing.assert_array_equal(np.concatenate([b.values["x_um"] for b in found]), np.arange(9.0))
    assert table.genes == ["Gad1", "Sst", "nan"]
    assert table.cells == ["c1", "c2"]
    assert np.concatenate([b.cell for b in found]).tolist() == [0, -1, 1] * 3
