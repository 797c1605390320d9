"""Dialects of text tables: the mark between fields, and that of decimals."""

import csv
import gzip
import re
from itertools import chain, zip_longest
from pathlib import Path
from typing import IO, NamedTuple, cast

_MARKS = (",", "\t", ";", "|")
_LOOKED_AT = 2**16  # bytes of the first lines
_LINES = 200
_COMMA = re.compile(r"^-?\d+(,\d+)+(\.\d+)?$")
_POINT = re.compile(r"^-?[\d,]*\d\.\d+$")
_GROUPED = re.compile(r"^-?[1-9]\d{0,2}(,\d{3})+(\.\d+)?$")  # 1,234 and 1,234,567.8
_SHORT, _LONG = re.compile(r"^-?\d{1,3}$"), re.compile(r"^-?\d{4,}$")


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


class OtherTextError(ValueError):
    """Text that is whole, and cannot be taken for a table as it is."""


class AmbiguousNumbersError(OtherTextError):
    """Commas that may part fractions or thousands."""


def is_gzipped(path: Path) -> bool:
    """Check that a file is gzipped, whatever it is called."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def open_text(path: Path) -> IO[bytes]:
    """Open a text file, possibly gzipped, for its bytes."""
    return cast(IO[bytes], gzip.open(path)) if is_gzipped(path) else path.open("rb")


def dialect_of(path: Path) -> Dialect:
    """Recognise commas, semicolons, tabs and bars by two lines, decimal commas by the rows.

    Args:
        path: A text file, possibly gzipped.

    Raises:
        OtherTextError: It is UTF-16, or begins with lines that are no header.
        AmbiguousNumbersError: ``1,234`` may be a number above or below a thousand.
    """
    with open_text(path) as file:
        raw = file.read(_LOOKED_AT)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise OtherTextError("it is UTF-16: save it as UTF-8")
    begin = raw.decode("utf-8-sig", errors="replace")
    lines = [line for line in begin.splitlines() if line.strip()]
    if lines and lines[0].startswith(("#", "sep=")):
        raise OtherTextError(f"it begins with {lines[0][:20]!r}: delete what is above the header")
    if len(raw) == _LOOKED_AT:  # the last line may go on
        lines = lines[:-1] or lines
    lines = lines[:_LINES]
    if not lines:
        return Dialect(",", ".")
    bare = [re.sub(r'"[^"]*"', "", line) for line in lines[:2]]
    # names may hold marks, and so may numbers: what parts fields is in both; the first of equals
    sep = max(_MARKS, key=lambda mark: min(line.count(mark) for line in bare))
    if sep == ",":
        return Dialect(",", ".")
    try:
        rows = list(csv.reader(lines[1:], delimiter=sep))
    except csv.Error:
        return Dialect(sep, ".")
    columns = [[field.strip() for field in column] for column in zip_longest(*rows, fillvalue="")]
    return _with_commas(sep, columns)


def _with_commas(sep: str, columns: list[list[str]]) -> Dialect:
    """What commas within numbers are, by all numbers that have one and those that have none."""
    with_comma = [column for column in columns if any(map(_COMMA.match, column))]
    marked = [field for column in with_comma for field in column if _COMMA.match(field)]
    points = any(map(_POINT.match, chain(*columns)))
    if not all(map(_GROUPED.match, marked)):  # 0,5 and 1234,5 are no groups of three digits
        return Dialect(sep, "." if points else ",")
    if not marked or points or any(field.count(",") > 1 for field in marked):
        return Dialect(sep, ".", "," if marked else None)
    # 999 beside 1,000 counts on, 1000 beside 1,000 does not; whoever rounds 1,5 to 2 has 1,25 too
    short, long = (any(map(mark.match, chain(*with_comma))) for mark in (_SHORT, _LONG))
    if short == long:
        raise AmbiguousNumbersError(
            f"{marked[0]} may be {marked[0].replace(',', '')} or {marked[0].replace(',', '.')}: "
            "write numbers with decimal points, and without marks between thousands"
        )
    return Dialect(sep, ".", ",") if short else Dialect(sep, ",")
