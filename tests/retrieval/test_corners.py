"""Outlines in tables of corners, as viewers export them."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spatiagraph.retrieval import in_region, read_region

POS = np.array([[60.0, 60.0], [260.0, 60.0], [160.0, 60.0], [500.0, 500.0]])
ONE = [(20, 20), (100, 20), (100, 100), (20, 100)]
TWO = [(x + 200, y) for x, y in ONE]
FIRST, BOTH = [True, False, False, False], [True, True, False, False]
REMARKS = "#Selection name: Selection 1\n#Area (µm^2): 6400\n"


def rows(corners, *extra):
    return "\n".join(",".join(map(str, (*extra, x, y))) for x, y in corners) + "\n"


CLOSED = [[*ring, ring[0]] for ring in (ONE, TWO)]
FILES = {
    "xenium explorer": (f"{REMARKS}X,Y\n{rows(ONE)}", FIRST),
    "remarks in quotes": (f'"#Selection, name"\nX,Y\n{rows(ONE)}', FIRST),
    "selections named": (f"Selection,X,Y\n{rows(ONE, 'S 1')}{rows(TWO, 'S 2')}", BOTH),
    "names under remarks": (f"{REMARKS}Selection,X,Y\n{rows(ONE, 1)}{rows(TWO, 2)}", BOTH),
    "any name of the column": (f"gland,x_um,y_um\n{rows(ONE, 'a')}{rows(TWO, 'b')}", BOTH),
    "one after the other": (f"{REMARKS}X,Y\n{rows(ONE)}{REMARKS}X,Y\n{rows(TWO)}", BOTH),
    "two headers": (f"x,y\n{rows(ONE)}x,y\n{rows(TWO)}", BOTH),
    "corners come back": (f"x,y\n{rows(CLOSED[0])}{rows(CLOSED[1])}", BOTH),
    "closed and named": (f"s,x,y\n{rows(CLOSED[0], 1)}{rows(CLOSED[1], 2)}", BOTH),
    "semicolons": ("x;y\n20,0;20,0\n100,5;20,0\n100,5;100,0\n20,0;100,0\n", FIRST),
    "a byte order mark": (f"\ufeffX,Y\n{rows(ONE)}", FIRST),
    "vertices counted": (
        "vertex,x,y\n"
        + "".join(f"{i},{x},{y}\n" for r in (ONE, TWO) for i, (x, y) in enumerate(r)),
        BOTH,
    ),
    "a constant beside": (f"slide,x,y\n{rows(ONE, 'A')}", FIRST),
    "a number of the row": (
        "i,x,y\n" + "".join(f"{i},{x},{y}\n" for i, (x, y) in enumerate(ONE)),
        FIRST,
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_cells_inside_of_outlines_in_a_table(tmp_path, name):
    text, inside = FILES[name]
    (tmp_path / "drawn.csv").write_text(text, encoding="utf-8")
    assert_array_equal(in_region(POS, read_region(tmp_path / "drawn.csv")), inside)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"selection,x,y\n{rows(ONE[:2], 1)}{rows(TWO, 2)}", "column 'selection', whose values"),
        (
            "who,x,y\n"
            + "".join(rows([a], "p") + rows([b], "q") for a, b in zip(ONE, TWO, strict=True)),
            "column 'who', whose values change",
        ),
        (f"{REMARKS}a,b\n1,2\n", r"columns x and y in drawn\.csv, got a, b"),
        ("", "got an empty table"),
        (f"x,y\n{rows(ONE[:2])}", r"at least three corners.*in drawn\.csv"),
    ],
)
def test_tables_that_could_be_mixed_up_are_refused(tmp_path, text, message):
    (tmp_path / "drawn.csv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_region(tmp_path / "drawn.csv")
