"""Tables say the same to people and to pandas, and nothing to a spreadsheet's formulas."""

import pandas as pd
import pytest

from spatiagraph._tables import write_csv

FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\n=1", "\uff1d1+1"]


def cells(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False, lineterminator="\n")


@pytest.mark.parametrize("text", FORMULAS)
@pytest.mark.parametrize("kind", [str, "category", object])
def test_text_that_begins_like_a_formula_is_text(tmp_path, text, kind):
    table = pd.DataFrame({"label": pd.Series([text, "T cell"], dtype=kind), f"{text}x": [1, 2]})
    table.index = pd.Index([text, "cell1"], name=text)
    write_csv(table, tmp_path / "a.csv", index=True)
    read = pd.read_csv(tmp_path / "a.csv", index_col=0)
    assert read["label"].tolist() == [f"'{text}", "T cell"]
    assert read.index.tolist() == [f"'{text}", "cell1"]
    assert read.index.name == f"'{text}"
    assert list(read) == ["label", f"'{text}x"]


def test_a_carriage_return_begins_no_cell(tmp_path):
    write_csv(pd.DataFrame({"label": ["T\r=1+1", "B\r\n=2"]}), tmp_path / "a.csv")
    assert pd.read_csv(tmp_path / "a.csv")["label"].tolist() == ["T\n=1+1", "B\n=2"]
    assert "\r" not in (tmp_path / "a.csv").read_text(encoding="utf-8")


def test_levels_of_an_index_are_text_too(tmp_path):
    index = pd.MultiIndex.from_tuples([("=a", "-1"), ("b", "@c")], names=["transition", "how"])
    write_csv(pd.DataFrame({"score": [0.5, -1.5]}, index=index), tmp_path / "a.csv", index=True)
    assert cells(tmp_path / "a.csv").to_numpy().tolist() == [
        ["'=a", "-1", "0.5"],
        ["b", "'@c", "-1.5"],
    ]


def test_numbers_and_other_text_are_as_pandas_writes_them(tmp_path):
    table = pd.DataFrame(
        {
            "x_um": [-1.5, 2.0],
            "row": [0, -3],
            "known": [True, False],
            "id": ["-12", "a=b"],
            "label": pd.Categorical(["tumour", None]),
        }
    )
    write_csv(table, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == table.to_csv(index=False)
