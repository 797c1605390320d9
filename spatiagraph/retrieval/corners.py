"""Tables of corners: outlines that viewers such as Xenium Explorer export as ``.csv``."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph._files import check_file
from spatiagraph.data.read.tables import DAMAGED, numbers, unreadable

_PAIRS = (("x", "y"), ("x_um", "y_um"), ("x (µm)", "y (µm)"), ("vertex_x", "vertex_y"))
_FEWEST = 3  # corners of an outline


def read_corners(path: Path) -> list[NDArray[np.float64]]:
    """Read the outlines of a table of corners.

    Lines that begin with ``#`` are remarks. Several outlines are told apart by a column that names
    them (whatever it is called), by a number of the corner that starts again, by remarks or another
    header between them, or by corners that come back to the first.

    Args:
        path: A table with columns ``x`` and ``y`` (also in capitals, or with ``_um``).

    Returns:
        Corners of each outline, ``[V, 2]``.

    Raises:
        ValueError: There are no such columns, a value is no number, or a further column could name
            outlines and does not.
    """
    check_file(path, "a table of corners")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except DAMAGED as err:
        raise unreadable(path, err) from err
    rings = [ring for block in _blocks(text) for ring in _outlines(_table(block, path), path.name)]
    if not rings:
        raise ValueError(f"Expected columns x and y in {path.name}, got an empty table")
    return rings


def _blocks(text: str) -> list[str]:
    """Parts of a file that begin with a header of their own."""
    blocks: list[list[str]] = [[]]
    for line in text.splitlines():
        is_remark = line.lstrip('" ').startswith("#")
        if blocks[-1] and (is_remark or line.strip() == blocks[-1][0].strip()):
            blocks.append([])
        if not is_remark and line.strip():
            blocks[-1].append(line)
    return ["\n".join(block) for block in blocks if block]


def _table(text: str, path: Path) -> pd.DataFrame:
    try:
        first = text.partition("\n")[0]
        mark = max((",", ";", "\t"), key=first.count)
        return pd.read_csv(io.StringIO(text), sep=mark, decimal="," if mark == ";" else ".")
    except DAMAGED as err:
        raise unreadable(path, err) from err


def _outlines(table: pd.DataFrame, name: str) -> list[NDArray[np.float64]]:
    table.columns = table.columns.astype(str)
    by_name = {c.strip().lower(): c for c in table.columns}
    pair = next(([by_name[x], by_name[y]] for x, y in _PAIRS if {x, y} <= by_name.keys()), None)
    if pair is None:
        raise ValueError(f"Expected columns x and y in {name}, got {', '.join(map(str, table))}")
    xy = numbers(table, pair, name)
    starts = np.zeros(len(xy), dtype=bool)
    unclear = []
    for column in (c for c in table if c not in pair):
        code, values = pd.factorize(table[column], use_na_sentinel=False)
        if not 1 < len(values) < len(code):
            continue  # the same in each row, or another in each
        if np.bincount(code).min() >= _FEWEST and (np.diff(code) >= 0).all():
            starts[1:] |= np.diff(code) > 0
        elif pd.api.types.is_numeric_dtype(table[column]) and _counts_again(table[column]):
            starts[1:] |= np.diff(table[column].to_numpy(np.float64)) < 0
        else:
            unclear.append(str(column))
    if unclear and not starts.any():
        raise ValueError(
            f"Expected one outline in {name}, or a column that names several, got column "
            f"{unclear[0]!r}, whose values change without an outline of {_FEWEST} corners each. "
            "Sort the rows by outline, or drop the column"
        )
    return [ring for part in np.split(xy, np.flatnonzero(starts)) for ring in _closed(part)]


def _counts_again(values: pd.Series) -> bool:
    """Whether numbers count up from the same first one, several times."""
    step = np.diff(values.to_numpy(np.float64))
    again = np.flatnonzero(step < 0) + 1
    return bool(
        len(again) and (step[step >= 0] == 1).all() and (values.iloc[again] == values[0]).all()
    )


def _closed(xy: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Corners cut where they came back to the first of their outline."""
    rings, start = [], 0
    while start < len(xy):
        same = (xy[start + _FEWEST :] == xy[start]).all(axis=1)
        end = start + _FEWEST + int(same.argmax()) + 1 if same.any() else len(xy)
        rings.append(xy[start:end])
        start = end
    return rings
