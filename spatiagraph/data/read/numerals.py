"""Numbers of text tables as people write them: decimal commas, marks between thousands, lists.

A table has one decimal mark, but not every column with commas has numbers: 100,200 is a fraction,
a hundred thousand, or two ids. What nobody asks for stays text where that is open.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_LOOKED_AT = 10_000  # rows
_EXPONENT = r"(?:[eE][+-]?\d+)?"
_ANY = re.compile(rf"[+-]?[\d.,]*\d[\d.,]*{_EXPONENT}")
_FRACTION = re.compile(rf"[+-]?\d*,\d+{_EXPONENT}")  # 12,5
_BY_COMMAS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")  # 1,234 and 1,234,567.8
_BY_POINTS = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d+)?")  # 1.234 and 1.234,5
_SHORT, _LONG = re.compile(r"[+-]?\d{1,3}"), re.compile(r"[+-]?\d{4,}")
_MARKED = re.compile(r"[+-]?\d[\d.,'’ \u00a0\u202f]*[,'’ \u00a0\u202f][\d.,'’ \u00a0\u202f]*\d")


class OtherTextError(ValueError):
    """Text that is whole, and cannot be taken for a table as it is."""


class AmbiguousNumbersError(OtherTextError):
    """Marks that may part fractions or thousands."""


class Numerals(NamedTuple):
    """Marks within numbers.

    Attributes:
        decimal: Between whole numbers and fractions.
        thousands: Between groups of three digits; ``None`` where digits are not grouped.
    """

    decimal: str = "."
    thousands: str | None = None

    @property
    def pattern(self) -> str:
        """Regular expression of a number of these marks."""
        point, whole = re.escape(self.decimal), r"\d+"
        if self.thousands is not None:
            whole = rf"(?:\d+|[1-9]\d{{0,2}}(?:{re.escape(self.thousands)}\d{{3}})+)"
        return rf"^[+-]?(?:{whole}(?:{point}\d*)?|{point}\d+){_EXPONENT}$"


class _Fields:
    """Marks in the fields of a column, all of which look like numbers.

    Args:
        values: The fields.
        asked: Whether they have to be numbers, and so no lists.
    """

    def __init__(self, values: Sequence[str], asked: bool):
        commas = [value for value in values if "," in value]
        rest = [value for value in values if "," not in value]
        pointed = [value for value in rest if "." in value]
        self.may_be_ids = bool(commas) and not asked and _may_be_ids(values)
        self.by_points = any("." in v and _BY_POINTS.fullmatch(v) for v in commas)
        self.is_grouped = bool(commas) and all(map(_BY_COMMAS.fullmatch, commas))
        self.is_decimal = (
            bool(commas)
            and all(_FRACTION.fullmatch(v) or _BY_POINTS.fullmatch(v) for v in commas)
            and all(self.by_points and _BY_POINTS.fullmatch(v) for v in pointed)
            and (asked or _is_written_alike(commas, rest))
        )
        self.has_points = not self.by_points and (
            bool(pointed) or (self.is_grouped and any("." in value for value in commas))
        )
        self.counts_by_points = (  # 980 beside 1.234: fractions would all be as long, or not
            bool(pointed)
            and not commas
            and all(map(_BY_POINTS.fullmatch, pointed))
            and any(map(_SHORT.fullmatch, rest))
            and not any(map(_LONG.fullmatch, rest))
        )
        self.has_millions = self.is_grouped and any(value.count(",") > 1 for value in commas)
        self.has_short, self.has_long = (
            bool(commas) and any(map(form.fullmatch, rest)) for form in (_SHORT, _LONG)
        )


def _may_be_ids(values: Sequence[str]) -> bool:
    """Whether all that commas part has as many digits, and none begins with 0.

    A single digit may be 0, unless all numbers would be below 1.
    """
    lists = [value.split(",") for value in values]
    parts = [part for of in lists for part in of]
    size = len(parts[0])
    if not all(part.isdecimal() and len(part) == size for part in parts):
        return False
    return any(of[0] != "0" for of in lists) if size == 1 else all(p[0] != "0" for p in parts)


def _is_written_alike(commas: Sequence[str], rest: Sequence[str]) -> bool:
    """Whether fractions are all as long, or as short as can be: such end in no zero."""
    endings = [re.sub(r"[eE].*", "", value).rpartition(",")[2] for value in commas]
    is_fixed = not rest and len({*map(len, endings)}) == 1
    return is_fixed or not any(ending.endswith("0") for ending in endings)


def numerals_of(
    columns: Mapping[str, Sequence[str]], asked: Collection[str] = ()
) -> dict[str, Numerals]:
    """Recognise the marks within numbers of the columns of a table.

    Args:
        columns: Name → its fields as they stand in the file, without those that are missing.
        asked: Columns that have to be numbers, and so no lists.

    Returns:
        Name → marks, of the columns that have numbers with commas, and of those whose points part
        thousands. All others are text, or numbers with points.

    Raises:
        AmbiguousNumbersError: A column that has to be numbers has 1.234 beside 980, where others
            have decimal commas.

    Examples:
        >>> numerals_of({"x": ["12,5", "7"], "near": ["7,120", "31,5"]})
        {'x': Numerals(decimal=',', thousands=None)}
        >>> numerals_of({"x": ["1,234"], "y": ["0.5"]})
        {'x': Numerals(decimal='.', thousands=',')}
    """
    found = {
        name: _Fields(values, name in asked)
        for name, values in columns.items()
        if values and all(map(_ANY.fullmatch, values))
    }
    numbers = {name: fields for name, fields in found.items() if not fields.may_be_ids}
    if any(numbers[name].counts_by_points for name in asked if name in numbers):
        _check_points(columns, numbers)
    decimal = _decimal([numbers[name] for name in asked if name in numbers])
    decimal = decimal or _decimal([*numbers.values()])
    by_points = decimal == "," and any(fields.by_points for fields in numbers.values())
    marks = {}
    for name, fields in numbers.items():
        if decimal == "," and (fields.is_decimal or (by_points and fields.has_points)):
            marks[name] = Numerals(",", "." if by_points else None)
        elif decimal == "." and fields.is_grouped:
            marks[name] = Numerals(".", ",")
    return marks


def _check_points(columns: Mapping[str, Sequence[str]], numbers: Mapping[str, _Fields]) -> None:
    """Refuse 1.234 beside 980 where only other columns have decimal commas."""
    counted = [name for name, fields in numbers.items() if fields.counts_by_points]
    others = [fields for name, fields in numbers.items() if name not in counted]
    if _decimal(others) != "," or any(fields.by_points for fields in others):
        return
    name = counted[0]
    value = next(value for value in columns[name] if "." in value)
    raise AmbiguousNumbersError(
        f"{value} in column {name!r} may be {value.replace('.', '')} or a fraction, as other "
        "columns have decimal commas: write numbers with decimal points, and without marks "
        "between thousands"
    )


def _decimal(columns: Sequence[_Fields]) -> str | None:
    """The decimal mark of a table, as far as its numbers tell it."""
    if any(fields.is_decimal and fields.by_points for fields in columns):  # 1.234,5
        return ","
    if any(fields.has_points for fields in columns):
        return "."
    if any(fields.is_decimal and not fields.is_grouped for fields in columns):  # 0,5 and 1234,5
        return ","
    if any(fields.has_millions for fields in columns):
        return "."
    # 999 beside 1,000 counts on, 1000 beside 1,000 does not; whoever rounds 1,5 to 2 has 1,25 too
    grouped = [fields for fields in columns if fields.is_grouped]
    short, long = (any(f.has_short for f in grouped), any(f.has_long for f in grouped))
    return None if short == long else "." if short else ","


def marked_numbers(
    table: pd.DataFrame,
    asked: Collection[str],
    again: Callable[[list[str]], pd.DataFrame],
) -> dict[str, pd.Series]:
    """Columns of text that are numbers with commas, as numbers.

    Args:
        table: A table whose numbers with commas were read as text.
        asked: Columns that have to be numbers.
        again: Reads columns of fractions once more, as text: 1.234 beside 1.234,5 is a thousand.

    Raises:
        AmbiguousNumbersError: As of :func:`numerals_of`.
    """
    text = _columns(table)
    with_commas = [field for fields in text.values() for field in fields if "," in field]
    if not with_commas:
        return {}
    grouped = any("." in field and _BY_POINTS.fullmatch(field) for field in with_commas)
    if grouped or any(marks.decimal == "," for marks in numerals_of(text).values()):
        fractions = again([str(c) for c in table if table[c].dtype.kind == "f"])
        table = table.assign(**{str(n): c for n, c in fractions.items() if _counts(c, grouped)})
        text = _columns(table)
    found = {name: as_numbers(table[name], of) for name, of in numerals_of(text, asked).items()}
    return {name: numbers for name, numbers in found.items() if numbers is not None}


def _counts(column: pd.Series, grouped: bool) -> bool:
    """Check for fractions that may be thousands: 1.234 beside 980, or in a table of 1.234,5."""
    fields = _text(column)
    pointed = [field for field in fields if "." in field]
    if not pointed or not all(map(_BY_POINTS.fullmatch, pointed)):
        return False  # 12.5 is none, and says nothing of what commas are
    return grouped or _Fields(fields, asked=True).counts_by_points


def as_numbers(column: pd.Series, marks: Numerals) -> pd.Series | None:
    """A column of text as numbers; ``None`` where a field is none of such marks.

    Args:
        column: Text, or missing.
        marks: Marks within its numbers.
    """
    text = pc.utf8_trim_whitespace(pa.array(column, pa.string(), from_pandas=True))
    if not pc.all(pc.match_substring_regex(text, marks.pattern)).as_py():
        return None
    text = pc.utf8_ltrim(text, "+")
    if marks.thousands is not None:
        text = pc.replace_substring(text, marks.thousands, "")
    text = pc.replace_substring(text, marks.decimal, ".")
    is_whole = not text.null_count and not pc.any(pc.match_substring_regex(text, "[.eE]")).as_py()
    values = pc.cast(text, pa.int64() if is_whole else pa.float64())
    return pd.Series(values.to_numpy(zero_copy_only=False), column.index, name=column.name)


def stays_text(column: pd.Series) -> bool:
    """Check for text all of which looks like numbers with marks between their digits."""
    fields = _text(column)
    return (
        bool(fields)
        and any(map(_MARKED.fullmatch, fields))
        and all(_MARKED.fullmatch(field) or _ANY.fullmatch(field) for field in fields)
    )


def comma_advice(value: object) -> str | None:
    """Advice on writing a number that has commas; ``None`` of anything else.

    Examples:
        >>> comma_advice("1,234")
        '1,234 may be 1234 or 1.234: write numbers with decimal points, and without marks ...'
    """
    if not isinstance(value, str) or not _MARKED.fullmatch(value.strip()):
        return None
    value = value.strip()
    either = f"may be {value.replace(',', '')} or {value.replace(',', '.')}"
    what = either if _BY_COMMAS.fullmatch(value) else "has marks within it"
    return f"{value} {what}: write numbers with decimal points, and without marks between thousands"


def _columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """First fields of the columns of text."""
    return {str(name): fields for name in table if (fields := _text(table[name]))}


def _text(column: pd.Series) -> list[str]:
    """First fields of a column of text; none of any other."""
    if not (pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column)):
        return []
    known = column.iloc[:_LOOKED_AT].dropna().tolist()
    return [v.strip() for v in known] if all(isinstance(v, str) for v in known) else []
