"""Conditions on the columns of a table, evaluated by comparisons of whole columns."""

import functools
import operator
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api import types

from spatiagraph.data.checks import nearest
from spatiagraph.retrieval import grammar
from spatiagraph.retrieval.grammar import Column, Constant

_COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_INDEX = "index"  # the name of the rows, as in pandas
Kind = Literal["numbers", "text", "truth values", "nothing"]
_OBJECTS: dict[str, Kind] = {  # what a column of Python objects holds
    "string": "text",
    "boolean": "truth values",
    "integer": "numbers",
    "floating": "numbers",
    "mixed-integer-float": "numbers",
}
Truth = pd.arrays.BooleanArray
"""True, false or unknown, per row: what is unknown stays so when it is negated."""


class _Values(NamedTuple):
    """Values of one kind, ``[N]`` or a constant; of the kind ``"nothing"`` if all are missing."""

    said: str
    kind: Kind
    values: Any
    missing: Any  # [N] bool, or False


def meets(table: pd.DataFrame, condition: str) -> NDArray[np.bool_]:
    """Rows of a table that meet a condition.

    Args:
        table: ``N`` rows.
        condition: In the grammar of :mod:`spatiagraph.retrieval.grammar`; ``index`` is the name of
            the rows.

    Returns:
        ``[N]`` bool. What is missing meets no test, neither ``donor == 'A'`` nor ``donor != 'A'``
        nor ``not donor == 'A'``; ``isna(donor)`` asks for it.

    Raises:
        ValueError: If the text is not of the grammar, a column does not exist (suggests the
            nearest), or is compared with what it cannot hold; says where.

    Examples:
        >>> table = pd.DataFrame({"donor": ["A", "B", None], "area": [60.0, 40.0, 80.0]})
        >>> meets(table, "area > 50 and not donor == 'B'").tolist()
        [True, False, False]
        >>> meets(table, "isna(donor) or 30 < area < 50").tolist()
        [False, True, True]
    """
    truth = _Table(table, condition).meets(grammar.parse(condition))
    return truth.to_numpy(dtype=bool, na_value=False)


def unknown_column(name: object, table: pd.DataFrame) -> str:
    """Message for a column that a table does not have."""
    names = [str(column) for column in table]
    return f"a column of the table in the condition, got {name!r}. {nearest(str(name), names)}"


class _Table:
    """A table that a condition is evaluated on, and its text for messages."""

    def __init__(self, table: pd.DataFrame, text: str):
        self._table, self._text = table, text

    def meets(self, condition: grammar.Condition) -> Truth:
        """Truth of each row, ``[N]``."""
        match condition:
            case grammar.Not(part):
                return ~self.meets(part)
            case grammar.Combination(word, parts):
                join = operator.and_ if word == "and" else operator.or_
                return functools.reduce(join, map(self.meets, parts))
            case grammar.Missing(column):
                return self._truth(self._column(column).missing)
            case grammar.Flag(column):
                return self._flag(column)
            case grammar.Membership(column, constants):
                same = [grammar.Comparison(column, "==", one) for one in constants]
                return functools.reduce(operator.or_, map(self._compare, same))
            case grammar.Comparison():
                return self._compare(condition)

    def _flag(self, column: Column) -> Truth:
        found = self._column(column)
        if found.kind not in ("truth values", "nothing"):
            what = f"a comparison or a column that is true or false per item, got {found.said}"
            raise self._refusal(column, what)
        return self._truth(found.values, found.missing)

    def _compare(self, comparison: grammar.Comparison) -> Truth:
        sign, a, b = comparison.sign, *map(self._values, (comparison.left, comparison.right))
        if "nothing" in (a.kind, b.kind):
            return self._truth(False, True)
        if a.kind != b.kind:
            quotes = "; text stands in quotes" if "text" in (a.kind, b.kind) else ""
            what = f"two of a kind to compare, got {a.said} and {b.said}{quotes}"
            raise self._refusal(comparison.left, what)
        if sign not in ("==", "!=") and a.kind != "numbers":
            what = f"numbers to compare by {sign}, got {a.said}: ask by ==, != or in"
            raise self._refusal(comparison.left, what)
        return self._truth(_COMPARE[sign](a.values, b.values), a.missing, b.missing)

    def _truth(self, found: Any, *missing: Any) -> Truth:
        value = np.empty(len(self._table), dtype=bool)
        unknown = np.zeros(len(self._table), dtype=bool)
        value[:] = found
        for one in missing:
            unknown |= one
        return Truth(value, unknown)

    def _values(self, name: Column | Constant) -> _Values:
        if isinstance(name, Column):
            return self._column(name)
        value = name.value
        if isinstance(value, bool):
            return _Values(f"{value}", "truth values", value, False)
        kind: Kind = "text" if isinstance(value, str) else "numbers"
        return _Values(f"the {kind.removesuffix('s')} {value!r}", kind, value, False)

    def _column(self, column: Column) -> _Values:
        names = [str(name) for name in self._table]
        if column.name in names:
            series = self._table.iloc[:, names.index(column.name)]
        elif column.name == _INDEX:
            series = self._table.index.to_series()
        else:
            raise self._refusal(column, unknown_column(column.name, self._table))
        missing = series.isna().to_numpy()
        if missing.all():
            return _Values(f"column {column.name!r}", "nothing", False, missing)
        if isinstance(series.dtype, pd.CategoricalDtype):
            series = series.astype(series.cat.categories.dtype if not missing.any() else object)
        kind = _kind(series)
        if kind is None:
            what = (
                f"a column of numbers, text or truth values, {column.name!r} holds {series.dtype}"
            )
            raise self._refusal(column, what)
        return _Values(f"column {column.name!r} of {kind}", kind, _filled(series, kind), missing)

    def _refusal(self, name: Column | Constant, what: str) -> ValueError:
        return grammar.refusal(self._text, name.start, f"Expected {what}")


def _kind(series: pd.Series) -> Kind | None:
    if types.is_bool_dtype(series.dtype):
        return "truth values"
    if types.is_numeric_dtype(series.dtype):
        return None if types.is_complex_dtype(series.dtype) else "numbers"
    return _OBJECTS.get(types.infer_dtype(series, skipna=True))


def _filled(series: pd.Series, kind: Kind) -> NDArray:
    """Values with anything that compares in place of what is missing."""
    if kind == "text":
        return series.astype(object).where(series.notna(), "").to_numpy()
    if isinstance(series.dtype, np.dtype) and series.dtype != object:
        return series.to_numpy()
    whole = types.is_integer_dtype(series.dtype)  # a float has not the digits of all of them
    filled = series.where(series.notna(), False if kind == "truth values" else 0)
    return filled.to_numpy(dtype=bool if kind == "truth values" else None if whole else np.float64)
