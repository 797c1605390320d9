"""Conditions say what pandas says where nothing is missing, and run nothing."""

import numpy as np
import pandas as pd
import pytest

from spatiagraph.retrieval.filters import filter_mask

ITEMS = pd.DataFrame(
    {
        "area": [10.0, 60, 40, 80, 55],
        "cycle": pd.array([1, 2, None, 4, 5], dtype="Int64"),
        "donor": pd.Categorical(["A", "B", None, "A", "it's"]),
        "cell type": ["T cell", "B cell", "T cell", None, "B cell"],
        "edge": [True, False, True, False, True],
        "checked": pd.array([True, None, False, True, None], dtype="boolean"),
        "leiden": pd.Categorical(["0", "1", "2", "0", "1"]),
        "group": pd.Categorical([0, 1, 2, 0, 1]),
        "empty": [np.nan] * 5,
        "naïve": [1, 2, 3, 4, 2**62 + 1],
    },
    index=["c1", "c2", "c3", "c4", "c5"],
)


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("area > 50", [1, 3, 4]),
        ("50 < area", [1, 3, 4]),
        ("40 <= area < 60", [2, 4]),
        ("area > 50 and donor == 'A'", [3]),
        ("area > 50 or donor == 'A'", [0, 1, 3, 4]),
        ("area == 10 or area > 50 and donor == 'A'", [0, 3]),
        ("(area == 10 or area > 50) and donor == 'A'", [0, 3]),
        ("(area > 50) & (edge) | area == 10", [0, 4]),
        ("area > 50 & ~edge", [1, 3]),
        ("not area > 50", [0, 2]),
        ("not not edge", [0, 2, 4]),
        ("edge == False", [1, 3]),
        ("donor in ['A', 'B']", [0, 1, 3]),
        ("donor not in ('A', 'C')", [1, 4]),
        ("not donor in ['A']", [1, 4]),
        ('donor == "it\'s"', [4]),
        (r"donor == 'it\'s'", [4]),
        ("`cell type` == 'T cell'", [0, 2]),
        ("`cell type` != 'T cell'", [1, 4]),
        ("isna(`cell type`)", [3]),
        ("notna(cycle) and not isna(donor)", [0, 1, 3, 4]),
        ("cycle.isna() or `cell type`.isna()", [2, 3]),
        ("cycle > 1", [1, 3, 4]),
        ("checked", [0, 3]),
        ("not checked", [2]),
        ("checked or edge", [0, 2, 3, 4]),
        ("leiden == '0'", [0, 3]),
        ("group == 0", [0, 3]),
        ("group in [1, 2.0]", [1, 2, 4]),
        ("area > cycle", [0, 1, 3, 4]),
        ("area > -1e3", [0, 1, 2, 3, 4]),
        ("area == +.6e2", [1]),
        ("empty > 3 or not empty == 'x'", []),
        ("naïve == 4611686018427387905", [4]),
        ("index == 'c3'", [2]),
    ],
)
def test_rows_that_meet_a_condition(condition, rows):
    assert np.flatnonzero(filter_mask(ITEMS, condition)).tolist() == rows


def test_conditions_say_what_pandas_says_where_nothing_is_missing():
    rng = np.random.default_rng(0)
    items = pd.DataFrame(
        {
            "a": rng.integers(5, size=200),
            "b": rng.normal(size=200),
            "c": rng.choice(["x", "y", "z"], 200),
        }
    )
    tests = ["a > 2", "b <= 0.3", "c == 'x'", "a != 1", "c in ['x', 'z']", "-1 < b < 1", "b > a"]
    for _ in range(200):
        parts = [rng.choice(["", "not "]) + str(rng.choice(tests)) for _ in range(4)]
        p, q, r = rng.choice([" and ", " or ", " & ", " | "], 3)
        condition = f"{parts[0]}{p}({parts[1]}{q}{parts[2]}){r}{parts[3]}"
        wanted = items.eval(condition.replace(" & ", " and ").replace(" | ", " or "))
        np.testing.assert_array_equal(filter_mask(items, condition), wanted)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("", "got its end, at character 1"),
        ("area >", "got its end, at character 7"),
        ("area = 3", "equality is written ==, at character 6"),
        ("area > @limit", "no variables, at character 8"),
        ("aera > 50", "'aera'. Nearest: 'area'.*at character 1"),
        ("area > 50 and `cell typ` == 'x'", "'cell typ'. Nearest: 'cell type'.*at character 15"),
        ("leiden == 0", "column 'leiden' of text and the number 0; text stands in quotes"),
        ("area == '50'", "'area' of numbers and the text '50'"),
        ("edge == 1", "column 'edge' of truth values and the number 1"),
        ("area", "true or false per item, got column 'area' of numbers"),
        ("donor > 'A'", "numbers to compare by >, got column 'donor' of text"),
        ("3", "a comparison, got its end"),
        ("'a' in ['a']", "a comparison, got 'in'"),
        ("area in 'a'", "a list such as"),
        ("donor in []", "True or False, got ']'"),
        ("donor in ['A')", "'\\]', got '\\)'"),
        ("(area > 5", "'\\)', got its end"),
        ("area > 5 donor == 'A'", "the end, got 'donor'"),
        ("donor == 'A", "a text in quotes, got"),
        ("area > 1e999", "range of floats"),
        ("area > " + "9" * 400, "range of floats"),
        ("(" * 5000 + "edge" + ")" * 4000, "at most 50 parentheses"),
        ("edge and " * 5000 + "edge", "at most 10000 characters"),
        ("area > None", "'None'"),
        ("not", "got its end"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_place(condition, message):
    with pytest.raises(ValueError, match=message) as refused:
        filter_mask(ITEMS, condition)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "condition",
    [
        "area.to_csv('{file}')",
        "`cell type`.to_csv('{file}')",
        "area.isna().to_csv('{file}')",
        "@pd.read_pickle('{file}')",
        "@__import__('os').system('touch {file}') == 0",
        "__import__('os').system('touch {file}') == 0",
        "index.to_series().to_csv('{file}') == 0",
        "area > area.map(open('{file}', 'w').write)",
        "[x for x in ().__class__.__base__.__subclasses__()]",
        "open('{file}', 'w') or edge",
        "isna(open('{file}', 'w'))",
        "(lambda: open('{file}', 'w'))() == 1",
        "edge if open('{file}', 'w') else edge",
        'f\'{{open("{file}", "w")}}\' == donor',
    ],
)
def test_a_condition_runs_nothing(condition, tmp_path):
    file = tmp_path / "written"
    with pytest.raises(ValueError, match="Expected"):
        filter_mask(ITEMS, condition.format(file=file))
    assert not file.exists()
