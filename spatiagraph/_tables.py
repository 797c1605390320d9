"""Tables for people, as CSV that a spreadsheet can be trusted to open."""

import os
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from spatiagraph._files import replaced_file

# what spreadsheets take for the beginning of a formula, at half and full width
_FORMULA = ("=", "+", "-", "@", "\t", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_csv(table: pd.DataFrame, path: str | os.PathLike[str], *, index: bool = False) -> None:
    """Write a table; text that a spreadsheet would run as a formula gets an apostrophe before it.

    Names of cells, columns and labels come from files of others. Numbers stay numbers, also those
    with a sign; an older file stays until the new one is complete.

    Args:
        table: The table.
        path: The file.
        index: Whether to write the index.

    Raises:
        DiskFullError: There is no space for it.
    """
    columns = {i: _plain(table.iloc[:, i]) for i in range(table.shape[1])}
    plain = pd.DataFrame(columns, index=table.index)
    plain.columns = table.columns.map(_text) if len(table.columns) else table.columns
    if index:
        names = [_text(name) for name in table.index.names]
        if not is_numeric_dtype(table.index.dtype) or isinstance(table.index, pd.MultiIndex):
            plain.index = table.index.map(_texts)
        plain.index.names = names
    with replaced_file(path) as new:
        plain.to_csv(new, index=index)


def _plain(column: pd.Series) -> pd.Series:
    if is_numeric_dtype(column.dtype) or is_bool_dtype(column.dtype):
        return column
    return column.astype(object).map(_text, na_action="ignore")


def _texts(value: Any) -> Any:
    """A value of an index, which has several where it has levels."""
    return tuple(_text(part) for part in value) if isinstance(value, tuple) else _text(value)


def _text(value: Any) -> Any:
    if isinstance(value, str) and "\r" in value:  # which pandas writes without quotation marks
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    if isinstance(value, str) and value.startswith(_FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
