"""Dialects of text tables: the mark between fields, and that of decimals."""

import csv
import gzip
import re
from pathlib import Path
from typing import NamedTuple

_MARKS = (",", "\t", ";", "|")
_LOOKED_AT = 2**16  # bytes of the first lines
_COMMA, _POINT = re.compile(r"^-?\d+,\d+$"), re.compile(r"^-?\d+\.\d+$")


class Dialect(NamedTuple):
    """Marks of a text table.

    Attributes:
        sep: Between two fields.
        decimal: Between whole numbers and fractions.
    """

    sep: str
    decimal: str


def dialect_of(path: Path) -> Dialect:
    """Tell commas, semicolons, tabs and bars by two lines, decimal commas by the rows.

    Args:
        path: A text file, possibly gzipped.
    """
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        raw = file.read(_LOOKED_AT)
    begin = raw.decode("utf-8-sig", errors="replace")
    lines = [line for line in begin.splitlines() if line.strip()]
    if len(raw) == _LOOKED_AT:  # the last line may go on
        lines = lines[:-1] or lines
    lines = lines[:20]
    if not lines:
        return Dialect(",", ".")
    bare = [re.sub(r'"[^"]*"', "", line) for line in lines[:2]]
    # names may hold marks, and so may numbers: what parts fields is in both; the first of equals
    sep = max(_MARKS, key=lambda mark: min(line.count(mark) for line in bare))
    if sep == ",":
        return Dialect(",", ".")
    try:
        fields = [field.strip() for row in csv.reader(lines[1:], delimiter=sep) for field in row]
    except csv.Error:
        return Dialect(sep, ".")
    has_comma, has_point = (any(map(mark.match, fields)) for mark in (_COMMA, _POINT))
    return Dialect(sep, "," if has_comma and not has_point else ".")
