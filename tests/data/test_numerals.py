"""Numbers with commas in text tables: fractions, thousands, or lists of ids."""

import gzip

import numpy as np
import pandas as pd
import pytest

import spatiagraph as sg
from spatiagraph.data.molecules.table import MoleculeTable
from spatiagraph.data.read.numerals import Numerals, numerals_of
from spatiagraph.data.read.tables import read_counts, read_table

RNG = np.random.default_rng(0)
POS = RNG.uniform(0, 1, (150, 2)) * (250, 200)
TYPES = {"kind": "types", "type_key": "kind", "mpp": 1}
FRACTIONS, THOUSANDS, BOTH = Numerals(","), Numerals(".", ","), Numerals(",", ".")


def cells(**more):
    found = {"cell_id": np.arange(150), "x": POS[:, 0], "y": POS[:, 1], "kind": ["a", "b"] * 75}
    return pd.DataFrame({**found, **more})


@pytest.mark.parametrize(
    ("columns", "marks"),
    [
        ({"x": ["12,5", "7"], "ids": ["100,200", "101,305"]}, {"x": FRACTIONS}),
        ({"x": ["12,5", "7"], "ids": ["7,120", "31,5", "2"]}, {"x": FRACTIONS}),
        ({"x": ["12,5", "7"], "ids": ["1,2", "1,2,3"]}, {"x": FRACTIONS}),
        ({"x": ["12,5", "7"], "ids": ["a,b", "1,2"]}, {"x": FRACTIONS}),
        ({"x": ["12.5", "7"], "ids": ["5,6", "7,8"]}, {}),
        ({"x": ["12.5", "7"], "ids": ["100,200", "101,305"]}, {}),
        ({"x": ["12.5", "7"], "n": ["1,200", "980"]}, {"n": THOUSANDS}),
        ({"x": ["12.5", "7"], "n": ["1,200,300"]}, {"n": THOUSANDS}),
        ({"x": ["0,123", "1,234"], "y": ["1,234", "2,345"]}, {"x": FRACTIONS, "y": FRACTIONS}),
        ({"x": ["1.234,5", "12,0"], "n": ["1.234", "980"]}, {"x": BOTH, "n": BOTH}),
        ({"x": ["1,5E+03", "2,5"]}, {"x": FRACTIONS}),
        ({"x": ["-0,5", "+2,5", ",5"]}, {"x": FRACTIONS}),
        ({"n": ["1,234", "2,345"]}, {}),
    ],
)
def test_marks_are_told_column_by_column_and_lists_have_none(columns, marks):
    assert numerals_of(columns) == marks


def test_a_column_that_has_to_be_numbers_is_no_list():
    columns = {"x": ["100,200", "101,305"], "y": ["12,5", "7"]}
    assert numerals_of(columns, ["x", "y"]) == {"x": FRACTIONS, "y": FRACTIONS}
    points = {"n": ["100,200", "101,305"], "y": ["12.5", "7"]}
    assert numerals_of(points, ["n"]) == {"n": THOUSANDS}
    # what is needed tells the decimal mark, whatever stands beside it
    assert numerals_of({"x": ["12,5"], "version": ["2.1"]}, ["x"]) == {"x": FRACTIONS}
    assert numerals_of({"x": ["12,5"], "version": ["2.1"]}) == {}


@pytest.mark.parametrize("sep", [";", "\t"])
@pytest.mark.parametrize("ids", [["100,200", "101,305"], ["1,2", "1,20"], ["a,b", "1,2"]])
def test_lists_beside_decimal_commas_stay_text(tmp_path, sep, ids):
    cells(near=ids * 75).to_csv(tmp_path / "c.csv", sep=sep, decimal=",", index=False)
    slide = sg.read(tmp_path / "c.csv", **TYPES)
    np.testing.assert_allclose(slide.pos, POS)
    assert slide.adata.obs["near"].astype(str).tolist() == ids * 75


def test_lists_are_no_proteins_and_that_is_said(tmp_path):
    table = cells(CD3=RNG.gamma(2, 3, 150), near=["100,200", "101,305"] * 75)
    table.to_csv(tmp_path / "c.csv", sep=";", decimal=",", index=False)
    said = "CD3 are taken for proteins; near, which may be numbers or lists, stay text"
    with pytest.warns(UserWarning, match=said):
        assert sg.read(tmp_path / "c.csv", kind="protein", mpp=1).symbols == ["CD3"]
    slide = sg.read(tmp_path / "c.csv", kind="protein", mpp=1, markers=["near"])
    np.testing.assert_allclose(
        slide.counts.toarray()[:2, 0], np.arcsinh(np.array([100.2, 101.305]) / 5), rtol=1e-6
    )


def test_only_columns_that_are_needed_have_to_be_told(tmp_path):
    whole = (1000 + 100 * POS).astype(int)
    table = cells(total=["1,234"] * 150, x=whole[:, 0], y=whole[:, 1])
    table.to_csv(tmp_path / "c.tsv", sep="\t", index=False)
    slide = sg.read(tmp_path / "c.tsv", **TYPES | {"mpp": 0.01})
    assert slide.adata.obs["total"].tolist() == ["1,234"] * 150
    proteins = {"kind": "protein", "markers": ["total"], "mpp": 0.01}
    for needed in (TYPES | {"x_key": "total", "y_key": "y"}, proteins):
        with pytest.raises(ValueError, match=r"in c\.tsv: 1,234 may be 1234 or 1\.234: write"):
            sg.read(tmp_path / "c.tsv", **needed)


def test_what_the_first_rows_do_not_show_is_no_thousand(tmp_path):
    rows = ["1,234", "999"] * 5_500
    path = tmp_path / "c.tsv"
    path.write_text("cell\tn\n" + "".join(f"c{i}\t{n}\n" for i, n in enumerate([*rows, "0,5"])))
    assert read_table(path)["n"].iloc[[0, -1]].tolist() == ["1,234", "0,5"]
    with pytest.raises(ValueError, match="c.tsv"):
        read_counts(path, ["cell"])


def test_thousands_by_points_are_thousands_in_every_column(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("cell;x;n;part\nc1;1.234,5;1.234;0,5\nc2;12,5;980;0,25\n")
    found = read_table(path)
    assert found["x"].tolist() == [1234.5, 12.5]
    assert found["n"].tolist() == [1234, 980]
    assert found["part"].tolist() == [0.5, 0.25]


def test_quoted_thousands_of_a_table_with_commas_are_numbers(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text('cell,n,near\nc1,"1,234","3,5,7"\nc2,980,"2,9"\n')
    found = read_table(path)
    assert found["n"].tolist() == [1234, 980]
    assert found["near"].tolist() == ["3,5,7", "2,9"]


def test_missing_values_beside_decimal_commas_are_missing(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("cell;n\nc1;1,5\nc2;\nc3;NA\nc4; 2,25\n")
    np.testing.assert_array_equal(read_table(path)["n"], [1.5, np.nan, np.nan, 2.25])


def test_counts_and_ids_of_a_table_with_thousands(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("cell;Gad1;Sst\n1,2;1,234;0\n3,4;7;2,345\n")
    ids, adata = read_counts(path, ["cell"])
    assert ids["cell"].tolist() == ["1,2", "3,4"]
    np.testing.assert_array_equal(adata.X.toarray(), [[1234, 0], [7, 2345]])


def test_other_columns_of_molecules_do_not_matter(tmp_path):
    path = tmp_path / "tx.csv"
    path.write_text("#x;y;gene;near\n1,5;2,5;Gad1;1,234\n3,5;4,5;Sst;2,345\n")
    (batch,) = MoleculeTable(path).batches()
    np.testing.assert_array_equal(batch.values["x_um"], [1.5, 3.5])
    path.write_text("x;y;gene\n1,234;2,345;Gad1\n")
    with pytest.raises(ValueError, match="1,234 may be 1234 or 1.234: write"):
        list(MoleculeTable(path).batches())


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("first", ["#cell_id", "# cell_id", '"#cell_id"', "cell_id"])
def test_a_mark_before_the_header_is_no_part_of_it(tmp_path, bom, end, first):
    text = cells().to_csv(index=False, quoting=3, lineterminator=end)
    text = bom + text.replace("cell_id", first, 1)
    (tmp_path / "c.csv").write_bytes(text.encode())
    slide = sg.read(tmp_path / "c.csv", **TYPES)
    assert slide.adata.obs_names[:2].tolist() == ["0", "1"]
    assert "cell_id" in slide.adata.obs
    np.testing.assert_allclose(slide.pos, POS)


def test_a_header_with_a_mark_is_told_from_a_line_above_it(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("#cell,kind\nc1,T\nc2,B\n")
    assert list(read_table(path)) == ["cell", "kind"]
    path.write_text("#,x\n1,2\n")
    assert list(read_table(path)) == ["#", "x"]
    for above in ("# of a program", "# by me, of a program, today", "#exported,by,me"):
        path.write_text(f"{above}\ncell,x,y\n1,2,3\n")
        with pytest.raises(ValueError, match=f"begins with '{above[:20]}': delete"):
            read_table(path)


@pytest.mark.parametrize(
    "ids", [["3,4", "5,7"], ["0,3", "2,0"], ["3,4", "5"], ["1,2", "1,2,3"], ["3,4,5", "1,2,6"]]
)
def test_single_digits_beside_decimal_commas_may_be_lists(tmp_path, ids):
    cells(near=ids * 75).to_csv(tmp_path / "c.csv", sep=";", decimal=",", index=False)
    assert sg.read(tmp_path / "c.csv", **TYPES).adata.obs["near"].astype(str).tolist() == ids * 75
    said = "near, which may be numbers or lists, stay text"
    cells(near=ids * 75, CD3=POS[:, 0] + 0.25).to_csv(
        tmp_path / "p.csv", sep=";", decimal=",", index=False
    )
    with pytest.warns(UserWarning, match=said):
        sg.read(tmp_path / "p.csv", kind="protein", mpp=1)


@pytest.mark.parametrize("numbers", [["0,3", "0,7"], ["3,4", "12,5"], ["3,4", "0,25"]])
def test_what_cannot_be_lists_of_single_digits_are_fractions(numbers):
    found = numerals_of({"x": ["12,5", "7"], "near": numbers})
    assert found == {"x": FRACTIONS, "near": FRACTIONS}


def test_single_digits_that_are_needed_are_fractions(tmp_path):
    near = ["3,4", "5,7"] * 75
    cells(near=near).to_csv(tmp_path / "c.csv", sep=";", decimal=",", index=False)
    slide = sg.read(tmp_path / "c.csv", kind="protein", mpp=1, markers=["near"], transform="none")
    np.testing.assert_allclose(slide.counts.toarray()[:2, 0], [3.4, 5.7], rtol=1e-6)


COUNTS = {
    "fractions and thousands": ("1.234,5;1.234\n12,5;980\n", [[1234.5, 1234], [12.5, 980]]),
    "thousands alone": ("1.234;12,5\n2.345.678;1.000,5\n", [[1234, 12.5], [2345678, 1000.5]]),
    "whole thousands": ("1.000;12,5\n2.000;1.000,5\n", [[1000, 12.5], [2000, 1000.5]]),
    "fractions": ("0,5;12\n1,25;7\n", [[0.5, 12], [1.25, 7]]),
}


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("rows_at_once", [1, 100])
@pytest.mark.parametrize("rows", COUNTS)
def test_a_streamed_table_has_the_numbers_of_one_read_whole(tmp_path, rows, rows_at_once, zipped):
    text, wanted = COUNTS[rows]
    lines = [f"c{i};{line}" for i, line in enumerate(text.splitlines())]
    table = "\n".join(["cell;Gad1;Sst", *lines]) + "\n"
    path = tmp_path / f"c.csv{zipped}"
    path.write_bytes(gzip.compress(table.encode()) if zipped else table.encode())
    _, streamed = read_counts(path, ["cell"], values_at_once=2 * rows_at_once)
    whole = read_table(path, needed=["Gad1", "Sst"], text=["cell"])[["Gad1", "Sst"]]
    np.testing.assert_allclose(streamed.X.toarray(), wanted)
    np.testing.assert_allclose(whole, wanted)


@pytest.mark.parametrize("later", ["1.2345", "1.234", "1 234", "12;5"])
def test_what_the_first_rows_do_not_show_is_refused_in_a_streamed_table(tmp_path, later):
    rows = [f"c{i};0,5;{i}" for i in range(300)]
    (tmp_path / "c.csv").write_text("\n".join(["cell;Gad1;Sst", *rows, f"c;0,5;{later}"]) + "\n")
    with pytest.raises(ValueError, match="c.csv"):
        read_counts(tmp_path / "c.csv", ["cell"])


def test_points_that_may_part_thousands_are_refused_where_they_are_needed(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("cell;x;y;area\nc1;1.234;980;12,5\nc2;980;2.345;0,25\n")
    said = "c.csv: 1.234 in column 'x' may be 1234 or a fraction, as other columns .* commas: write"
    with pytest.raises(ValueError, match=said):
        read_table(path, needed=["x", "y"])
    with pytest.raises(ValueError, match="'x' may be 1234"):
        read_counts(path, ["cell", "area"])
    path.write_text("cell;x;y;area\nc1;1.2;980;12,5\nc2;980;2.345;0,25\n")
    assert read_table(path, needed=["x"])["x"].tolist() == [1.2, 980]
