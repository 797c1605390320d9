"""Dialects of text tables: the mark between fields, and that of decimals."""

import csv
import gzip
import re
from collections.abc import Collection, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import IO, NamedTuple, cast

from spatiagraph.data.read.numerals import (
    AmbiguousNumbersError,
    Numerals,
    OtherTextError,
    comma_advice,
    numerals_of,
)

_MARKS = (",", "\t", ";", "|")
_LOOKED_AT = 2**16  # bytes of the first lines
_LINES = 200
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "None", "NULL", "null", "<NA>"]
"""Text of fields without a value."""
_NUMBER = re.compile(r"^\s*[+-]?[\d.,]*\d[\d.,]*\s*$")


class Dialect(NamedTuple):
    """Marks of a text table.

    Attributes:
        sep: Between two fields.
        decimal: Between whole numbers and fractions.
        thousands: Between groups of three digits; ``None`` where digits are not grouped.
    """

    sep: str
    decimal: str
    thousands: str | None = None


def is_gzipped(path: Path) -> bool:
    """Check that a file is gzipped, whatever it is called."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def open_text(path: Path) -> IO[bytes]:
    """Open a text file, possibly gzipped, for its bytes."""
    return cast(IO[bytes], gzip.open(path)) if is_gzipped(path) else path.open("rb")


def separator_of(path: Path) -> str:
    """Recognise commas, semicolons, tabs and bars between fields by the first two lines.

    Args:
        path: A text file, possibly gzipped.

    Raises:
        OtherTextError: It is UTF-16, or begins with lines that are no header.
    """
    return _begin(path)[0]


def dialect_of(path: Path, columns: Collection[str] = ()) -> Dialect:
    """Recognise the mark between fields by two lines, those within numbers by the first rows.

    Args:
        path: A text file, possibly gzipped.
        columns: Columns that have to be numbers; any others are lists where they may be such.

    Raises:
        OtherTextError: See :func:`separator_of`.
        AmbiguousNumbersError: One of ``columns`` has numbers that may be above or below a
            thousand.
    """
    marks = set(numerals_in(path, columns).values())
    decimal = next((m.decimal for m in marks), ".")
    thousands = next((m.thousands for m in marks if m.thousands), None)
    return Dialect(separator_of(path), decimal, thousands)


def numerals_in(path: Path, columns: Collection[str] = ()) -> dict[str, Numerals]:
    """Marks within the numbers of each column of a table, by the first rows.

    Args:
        path: A text file, possibly gzipped.
        columns: Columns that have to be numbers, of which alone marks are returned; by default
            those of all.

    Raises:
        OtherTextError: See :func:`separator_of`.
        AmbiguousNumbersError: See :func:`dialect_of`.
    """
    sep, lines = _begin(path)
    try:
        header, *rows = csv.reader(lines, delimiter=sep)
    except (csv.Error, ValueError):  # a field of many bytes, or no line
        return {}
    columns_of_rows = zip_longest(*rows, fillvalue="")
    fields = [[f.strip() for f in fields if f not in MISSING] for fields in columns_of_rows]
    table = dict(zip(aligned_header(path, header), fields, strict=False))
    found = numerals_of(table, columns)
    for name in columns:
        if name in table and name not in found and (of := _ambiguous(table[name])):
            raise AmbiguousNumbersError(of)
    return {name: found[name] for name in (columns or found) if name in found}


def aligned_header(path: Path, names: Sequence[str]) -> list[str]:
    """Names of the columns of a table, one for each field of its rows, as they are meant.

    R writes row names without a name above them, and some programs end each row with a mark: in
    both a row has a field more than the header.

    Args:
        path: A text file, possibly gzipped.
        names: Names in its first line.

    Raises:
        OtherTextError: Rows have more fields than there are names, and not one more each.
    """
    sep, lines = _begin(path)
    try:
        rows = [row for row in csv.reader(lines[1:], delimiter=sep) if row]
    except csv.Error:  # a field of many bytes
        return clean_header(names)
    more = {len(row) - len(names) for row in rows}
    if not rows or len(rows[0]) <= len(names):
        return clean_header(names)
    if more != {1}:
        raise OtherTextError(
            f"its header has {len(names)} fields and its first row {len(rows[0])}: give each "
            "column a name"
        )
    quoted = all(line.lstrip().startswith('"') for line in lines[1:])
    if any(row[-1] for row in rows) or (quoted and len({row[0] for row in rows}) == len(rows)):
        return ["Unnamed: 0", *clean_header(names)]
    return [*clean_header(names), f"Unnamed: {len(names)}"]


def clean_header(names: Sequence[str]) -> list[str]:
    """Names of columns without spaces around them, and the # that may stand before the first.

    Examples:
        >>> clean_header(["#cell_id", " x", "#spots"])
        ['cell_id', 'x', '#spots']
    """
    names = [name.strip() or name for name in names]
    return [
        name.lstrip("# ") or name if at == 0 and "#" in name[:1] else name
        for at, name in enumerate(names)
    ]


def _ambiguous(fields: Sequence[str]) -> str | None:
    """Advice on the first field with commas."""
    return next((advice for f in fields if "," in f and (advice := comma_advice(f))), None)


def _begin(path: Path) -> tuple[str, list[str]]:
    """The mark between fields, and the first lines that are whole."""
    with open_text(path) as file:
        raw = file.read(_LOOKED_AT)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise OtherTextError("it is UTF-16: save it as UTF-8")
    begin = raw.decode("utf-8-sig", errors="replace")
    lines = [line for line in begin.splitlines() if line.strip()]
    if len(raw) == _LOOKED_AT:  # the last line may go on
        lines = lines[:-1] or lines
    if not lines:
        return ",", []
    bare = [re.sub(r'"[^"]*"', "", line) for line in lines[:2]]
    # names may hold marks, and so may numbers: what parts fields is in both; the first of equals
    sep = max(_MARKS, key=lambda mark: min(line.count(mark) for line in bare))
    words = {len(line.split()) for line in lines[:_LINES]}
    has_marks = any(mark in line for mark in _MARKS for line in bare)
    if not has_marks and min(words) > 2 and max(words) - min(words) <= 1:
        raise OtherTextError("spaces part its fields: write commas or tabs between them")
    is_comment = lines[0].startswith("#") and not _is_header(lines[:3], sep)
    if is_comment or lines[0].startswith("sep="):
        raise OtherTextError(f"it begins with {lines[0][:20]!r}: delete what is above the header")
    return sep, lines[:_LINES]


def _is_header(lines: Sequence[str], sep: str) -> bool:
    """Whether a first line with # names the columns: as many as there are, above their values."""
    names, *rows = csv.reader(lines, delimiter=sep)
    if len(names) < 2 or any(len(row) != len(names) for row in rows):
        return False
    with_numbers = [any(map(_NUMBER.match, row)) for row in rows]
    return not rows or with_numbers[0] or not (with_numbers[-1] or lines[0].startswith("# "))
