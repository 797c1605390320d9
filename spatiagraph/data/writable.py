"""Values and names of an AnnData that HDF5 and Zarr can hold, or one clear line.

Vendors' tables and people's ``uns`` hold what a file cannot: True and False with gaps, dates,
values of several kinds, keys that are numbers, names with a slash. They are brought to what it can
when a slide is read, so that nothing is lost after the work.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import date, time, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import issparse

_TEXT = (date, time, timedelta, PurePath, UUID, Enum, np.datetime64, np.timedelta64, pd.Period,
         pd.Interval)  # fmt: skip
_SLOTS = ("layers", "obsm", "varm", "obsp", "varp")
_INT64 = range(-(2**63), 2**63)


def make_values_writable(adata: AnnData) -> list[str]:
    """Bring values that files cannot hold to such as they can, in place.

    Flags and numbers with gaps stay flags and numbers. Dates, intervals, and values of several
    kinds become text; lists and dictionaries in ``uns`` keep what they hold.

    Args:
        adata: Its tables and dictionaries are replaced, arrays are not touched.

    Returns:
        What became text, a line for each; empty if nothing that matters changed.

    Raises:
        ValueError: Something is left that is neither numbers nor text; says where.
    """
    said: list[str] = []
    for axis in ("obs", "var"):
        table = getattr(adata, axis)
        if (changed := _writable_table(table, axis, said)) is not table:
            setattr(adata, axis, changed)
    for slot in _SLOTS:
        held = getattr(adata, slot)
        for key in _named(held):
            where, value = f"{slot}[{key!r}]", held[key]
            if isinstance(value, pd.DataFrame):
                if (changed := _writable_table(value, where, said)) is not value:
                    held[key] = changed
            elif getattr(value, "dtype", np.dtype(float)).kind == "O":
                raise ValueError(f"Expected numbers in {where}, got {_kinds(np.ravel(value))}")
    if adata.raw is not None:
        var = _writable_table(adata.raw.var, "raw.var", said)
        if var is not adata.raw.var:
            adata.raw = AnnData(adata.raw.X, var=var, varm=dict(adata.raw.varm))
    for key in list(adata.uns):
        value = _writable(adata.uns[key], f"uns[{key!r}]", said)
        if value is not adata.uns[key]:
            adata.uns[key] = value
    return said


def make_names_writable(adata: AnnData, *, strict: bool) -> list[str]:
    """Give columns, slots and keys names that the file can hold, in place.

    Args:
        adata: What is to be written.
        strict: Whether names must be such as SpatialData asks for, and not only HDF5.

    Returns:
        Old and new names, a line for each place.
    """
    said: list[str] = []
    for axis in ("obs", "var"):
        table = getattr(adata, axis)
        new = _renamed(table.columns, axis, strict, said)
        index = table.index.name
        if any(old != name for old, name in new.items()) or index in table.columns:
            table = table.set_axis([new[c] for c in table.columns], axis=1)
            setattr(adata, axis, table.rename_axis(None if index in new else index))
    for slot in _SLOTS:
        held = getattr(adata, slot)
        for old, name in _renamed(_named(held), slot, strict, said).items():
            if old != name:
                held[name] = held.pop(old)
    adata.uns = _renamed_keys(adata.uns, "uns", strict, said)
    return said


def plain_names(names: Iterable[object], *, strict: bool = False) -> dict[Any, str]:
    """Names without what a file cannot hold, still different from each other.

    Args:
        names: Any, also numbers.
        strict: Whether they must hold letters, digits, ``_``, ``-`` and ``.`` alone, and differ in
            more than small and capital letters.

    Examples:
        >>> plain_names(["a/b", "a_b", ""])
        {'a/b': 'a_b_2', 'a_b': 'a_b', '': 'unnamed'}
    """
    fold = str.lower if strict else str
    wanted = {name: _plain(str(name), strict) for name in names}
    taken: set[str] = set()
    found: dict[Any, str] = {}
    for old, new in sorted(wanted.items(), key=lambda pair: pair[0] != pair[1]):  # kept ones first
        name, number = new, 2
        while fold(name) in taken:
            name, number = f"{new}_{number}", number + 1
        taken.add(fold(name))
        found[old] = name
    return {old: found[old] for old in wanted}


def _named(held: Iterable[object]) -> list[Any]:
    """Keys of a slot: ``None`` among the layers is X since anndata 0.13."""
    return [key for key in held if key is not None]


def _plain(name: str, strict: bool) -> str:
    if strict:
        name = "".join(c if c.isalnum() or c in "_-." else "_" for c in name)
        name = name.lstrip("_") if name.startswith("__") else name
    name = name.replace("/", "_").replace("\0", "_")
    if name == "_index":
        return "index"
    return "unnamed" if not name.strip(".") else name


def _renamed(names: Iterable[object], where: str, strict: bool, said: list[str]) -> dict[Any, str]:
    new = plain_names(names, strict=strict)
    if changed := [f"{old!r} is {name!r}" for old, name in new.items() if old != name]:
        said.append(f"names that a file cannot hold are others in {where}: {', '.join(changed)}")
    return new


def _renamed_keys(
    held: Mapping[Any, Any], where: str, strict: bool, said: list[str]
) -> dict[str, Any]:
    new = _renamed(held, where, strict, said)
    return {
        new[key]: _renamed_keys(value, f"{where}[{key!r}]", False, said)
        if isinstance(value, Mapping)
        else value
        for key, value in held.items()
    }


def _writable_table(table: pd.DataFrame, where: str, said: list[str]) -> pd.DataFrame:
    """The same table if all of its columns can be written."""
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()].unique()[:5]
        raise ValueError(
            f"Expected different columns in {where}, got several called "
            f"{', '.join(repr(str(c)) for c in twice)}. Rename or drop them"
        )
    if isinstance(table.columns, pd.MultiIndex):
        table = table.set_axis([_joined(name) for name in table.columns], axis=1)
    table = _named_rows(table, where, said)
    changed = {
        name: new
        for name in table
        if (new := _writable_column(table[name], f"{where}[{name!r}]", said)) is not None
    }
    if not changed:
        return table
    table = table.copy(deep=False)
    for name, values in changed.items():
        table[name] = values
    return table


def _named_rows(table: pd.DataFrame, where: str, said: list[str]) -> pd.DataFrame:
    """The table with text or numbers as names of its rows."""
    if isinstance(table.index, pd.MultiIndex):
        said.append(f"names of rows of {where} ({table.index.nlevels} levels) as text")
        return table.set_axis([_joined(name) for name in table.index])
    is_number = isinstance(table.index.dtype, np.dtype) and table.index.dtype.kind in "iuf"
    if is_number or all(isinstance(name, str) for name in table.index):
        return table
    return table.set_axis([_text(name) for name in table.index])


def _joined(name: tuple[object, ...]) -> str:
    """A name of several levels as one."""
    return ", ".join(map(_text, name))


def _writable_column(values: pd.Series, where: str, said: list[str]) -> pd.Series | None:
    """A column that can be written; ``None`` if it can be as it is."""
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories
        if pd.api.types.is_bool_dtype(categories.dtype) or (
            pd.api.types.is_numeric_dtype(categories.dtype)
            and isinstance(categories.dtype, np.dtype)
        ):
            return None
        if all(isinstance(c, str) and _is_plain(c) for c in categories):
            return None
        text = pd.Index([_text(c) for c in categories], dtype=object)
        if not all(isinstance(c, str) for c in categories):
            said.append(f"categories of {where} ({_kinds(categories)}) as text")
        if text.is_unique:
            return values.cat.rename_categories(text.tolist())
        return _category(values.astype(object).map(_text, na_action="ignore"))
    if isinstance(dtype, np.dtype) and dtype.kind in "biufc":
        return None
    if isinstance(dtype, pd.BooleanDtype) or (
        pd.api.types.is_integer_dtype(dtype) and not isinstance(dtype, np.dtype | pd.SparseDtype)
    ):
        return None if not isinstance(dtype, pd.ArrowDtype) else _by_kind(values, where, said)
    if isinstance(dtype, pd.SparseDtype):
        return pd.Series(np.asarray(values), index=values.index)
    if pd.api.types.is_float_dtype(dtype):  # pandas' and Arrow's own floats, with gaps
        return values.astype(np.float64)
    return _by_kind(values, where, said)


def _by_kind(values: pd.Series, where: str, said: list[str]) -> pd.Series | None:
    """A column of Python objects, as what all of them are."""
    held = values.astype(object)
    known = held[held.notna()]
    kind = pd.api.types.infer_dtype(known, skipna=True)
    has_gaps = len(known) < len(held)
    if kind == "empty":
        return pd.Series(np.nan, index=values.index)
    if kind == "string":
        if values.dtype == object and not has_gaps and all(map(_is_plain, known.unique())):
            return None
        return _category(held.map(_text, na_action="ignore"))
    if kind == "boolean":
        return held.astype("boolean") if has_gaps else held.astype(bool)
    if kind == "integer" and all(v in _INT64 for v in known):
        return held.astype("Int64") if has_gaps else held.astype(np.int64)
    if kind in ("floating", "mixed-integer-float", "decimal"):
        return held.where(held.notna(), np.nan).astype(np.float64)
    if kind != "bytes":
        said.append(f"{where} ({_kinds(known)}) as text")
    return _category(held.map(_text, na_action="ignore"))


def _category(text: pd.Series) -> pd.Series:
    return text.astype("category") if text.isna().any() else text


def _writable(value: Any, where: str, said: list[str]) -> Any:
    """What is in ``uns``; the same object if it can be written.

    Raises:
        ValueError: It cannot be, nor be made so.
    """
    if value is None or isinstance(value, bool | int | float | np.bool_ | np.number):
        return str(value) if isinstance(value, int) and value not in _INT64 else value
    if isinstance(value, str):
        return value if _is_plain(value) else _text(value)
    if isinstance(value, complex | bytes):
        return str(value) if isinstance(value, complex) else _text(value)
    if isinstance(value, AnnData) or issparse(value):
        return value.tocsr() if issparse(value) and value.format not in ("csr", "csc") else value
    if isinstance(value, pd.DataFrame):
        return _writable_table(value, where, said)
    if isinstance(value, pd.Categorical):
        return value
    if isinstance(value, pd.Series | pd.Index | pd.api.extensions.ExtensionArray):
        return _writable_list(np.asarray(value).tolist(), where, said)
    if isinstance(value, Mapping):
        new = {str(k): _writable(v, f"{where}[{k!r}]", said) for k, v in value.items()}
        if len(new) < len(value):
            raise ValueError(f"Expected different keys in {where}, got some that are alike as text")
        return value if _is_same(value, new) else new
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "mM":
            return value.astype(str)
        if value.dtype != object or all(isinstance(v, str) for v in value.ravel()):
            return value
        return _writable_list(value.tolist(), where, said)
    if isinstance(value, list | tuple | set | frozenset):
        members = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
        return _writable_list(members, where, said)
    if isinstance(value, _TEXT):
        return str(value)
    if hasattr(value, "__array__") and hasattr(value, "shape"):  # dask, torch
        return (
            value
            if type(value).__module__.startswith(("dask", "h5py", "zarr"))
            else np.asarray(value)
        )
    raise ValueError(
        f"Expected numbers, text, tables or dictionaries of them in {where}, got "
        f"{type(value).__name__}, which no file can hold. Remove it: del adata.{where}"
    )


def _writable_list(members: Any, where: str, said: list[str]) -> Any:
    """A list as an array; one that is none, as JSON."""
    if not isinstance(members, list):
        return _writable(members, where, said)
    if all(isinstance(m, str) for m in members):
        return np.array([_text(m) for m in members], dtype=object) if members else np.array([])
    try:
        array = np.array(members)
    except ValueError:  # rows of different lengths
        array = np.array(None)
    if array.dtype.kind in "biuf":
        return array
    try:
        return json.dumps(members, default=_for_json)
    except TypeError as err:
        raise ValueError(
            f"Expected numbers or text in {where}, got {_kinds(members)}, which no file can hold: "
            f"{err}. Remove it: del adata.{where}"
        ) from err


def _for_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, _TEXT):
        return str(value)
    raise TypeError(f"a {type(value).__name__}")


def _is_same(old: Mapping[Any, Any], new: dict[str, Any]) -> bool:
    return all(isinstance(k, str) and new[k] is v for k, v in old.items())


def _is_plain(text: str) -> bool:
    """Whether HDF5 takes a text: no zero byte and no half of a pair of UTF-16."""
    return text.isprintable() or _text(text) == text


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    return str(value).replace("\0", "").encode("utf-8", errors="replace").decode("utf-8")


def _kinds(values: Any) -> str:
    """Types of values, for a message."""
    names = sorted({type(v).__name__ for v in list(values)[:1000]})
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
