"""Tables in vendors' folders: csv and parquet, found by name and refused by name when damaged."""

import csv
import math
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from anndata import AnnData
from pyarrow.lib import ArrowException
from scipy.sparse import csr_matrix, vstack

from spatiagraph import _json, keys
from spatiagraph._files import check_file
from spatiagraph._reasons import reason
from spatiagraph.data.checks import name_rows, nearest
from spatiagraph.data.places import listed as listed
from spatiagraph.data.places import member as member
from spatiagraph.data.read.dialect import (
    MISSING,
    aligned_header,
    is_gzipped,
    numerals_in,
    open_text,
    separator_of,
)
from spatiagraph.data.read.numerals import (
    AmbiguousNumbersError,
    Numerals,
    OtherTextError,
    as_numbers,
    comma_advice,
    marked_numbers,
)

_SUFFIXES = (".parquet", ".csv", ".csv.gz")
_BYTES_AT_ONCE = 2**24  # of text
DAMAGED = (ValueError, OSError, EOFError, zlib.error, ArrowException, OverflowError)
"""Errors of pandas, pyarrow and gzip on a damaged file."""


def find_table(folder: Path, stem: str) -> Path | None:
    """The table ``<stem>`` of a folder: ``.parquet``, ``.csv`` or ``.csv.gz``, in this order.

    Args:
        folder: Where to look.
        stem: Name without suffix; ``*`` stands for a prefix that differs from run to run.

    Raises:
        ValueError: Several tables have such a name.
    """
    for suffix in _SUFFIXES:
        found = [p for p in listed(folder, f"{stem}{suffix}") if not p.is_dir()]
        if len(found) > 1:
            raise ValueError(
                f"Expected one {stem}{suffix} in {folder}, got "
                f"{', '.join(p.name for p in found[:5])}: make a folder for each slide"
            )
        if found:
            return found[0]
    return None


def table_columns(path: Path) -> list[str]:
    """Names of the columns of a table; a name that occurs again stands there again.

    Raises:
        ValueError: The file is damaged.
    """
    check_file(path, "a table")
    try:
        if path.suffix.lower() == ".parquet":
            return [str(c) for c in pq.read_schema(path).names]
        return aligned_header(path, _header(path))
    except DAMAGED as err:
        raise unreadable(path, err) from err


def _packed(path: Path) -> Literal["gzip"] | None:
    """How a text file is packed, by its content."""
    return "gzip" if is_gzipped(path) else None


def _header(path: Path) -> list[str]:
    """Names of the columns of a csv file; the first may have none, as that of an index."""
    row = pd.read_csv(
        path,
        header=None,
        nrows=1,
        dtype=str,
        keep_default_na=False,
        sep=separator_of(path),
        compression=_packed(path),
    ).iloc[0]
    return [name or f"Unnamed: {place}" for place, name in enumerate(row)]


def read_table(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    needed: Sequence[str] = (),
    text: Sequence[str] = (),
    numeric: Sequence[str] = (),
) -> pd.DataFrame:
    """Read a csv or parquet table.

    Numbers of a csv file may have decimal commas, or marks between thousands. Columns in which
    such are not told from one another, or from lists, stay text.

    Args:
        path: The file.
        columns: Columns to read where the file has them; all by default.
        needed: Columns without which it is of no use.
        text: Columns of names, in which only an empty field is missing: nan is a gene of the fly.
        numeric: Columns that are no lists, beside the needed ones.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or a needed column is missing.
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected a table at {path}, found no such file")
    have = table_columns(path)
    if missing := [c for c in needed if c not in have]:
        raise ValueError(
            f"Expected columns {', '.join(needed)} in {path.name}, got no {', '.join(missing)}. "
            f"{nearest(missing[0], have)}"
        )
    wanted = {*needed, *(columns or ())}
    check_table(path, have, wanted)
    chosen = None if columns is None else [c for c in columns if c in have]
    try:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:  # what pandas noted of its index is no matter
                return file.read(columns=chosen).replace_schema_metadata().to_pandas()
        markers = {c: [""] if c in text else MISSING for c in have}
        names = _named(path, have)

        def read(**options: Any) -> pd.DataFrame:
            return pd.read_csv(
                path,
                low_memory=False,
                keep_default_na=False,
                na_values=markers,
                sep=separator_of(path),
                compression=_packed(path),
                **names,
                **options,
            )

        table = read(usecols=chosen)
        asked = [c for c in (*needed, *numeric) if c not in text]
        marked = marked_numbers(
            table[[c for c in table if c not in text]],
            asked,
            lambda fractions: read(usecols=fractions, dtype=str),
        )
        return table.assign(**marked) if marked else table
    except DAMAGED as err:
        raise unreadable(path, err) from err


def _named(path: Path, have: Sequence[str]) -> dict[str, Any]:
    """Names for pandas where those in the file are others."""
    if _header(path) == list(have):
        return {}
    seen: Counter[str] = Counter()
    names = []
    for name in have:  # as pandas tells those of one name apart
        names.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return {"header": 0, "names": names}


def check_table(path: Path, have: Sequence[str], wanted: set[str]) -> None:
    """Refuse a table whose wanted columns are twice or lists, and text that is cut or has NUL.

    Args:
        path: The file.
        have: Its columns, as :func:`table_columns` names them.
        wanted: Those that are read.

    Raises:
        ValueError: Names file and column.
    """
    if twice := sorted(name for name in wanted if have.count(name) > 1):
        raise ValueError(
            f"Expected each column of {path.name} once, got {', '.join(twice)} more often. Delete "
            "the one that is wrong"
        )
    if path.suffix.lower() == ".parquet":
        _check_flat(path, wanted)
        return
    try:
        check_text(path)
        _check_last_row(path)
    except DAMAGED as err:
        raise unreadable(path, err) from err


def _check_flat(path: Path, columns: set[str]) -> None:
    """Refuse lists where a column should have one value in each row."""
    nested = [
        f"{field.name!r} ({field.type})"
        for field in pq.read_schema(path)
        if field.name in columns and pa.types.is_nested(field.type)
    ]
    if nested:
        raise ValueError(
            f"Expected one value in each row of {path.name}, got lists in column {nested[0]}. "
            "Write the table again"
        )


def read_counts(
    path: Path, ids: Sequence[str], *, values_at_once: int = 20_000_000
) -> tuple[pd.DataFrame, AnnData]:
    """Read a table with a row for each cell and a column for each gene, piece by piece.

    Args:
        path: A csv file, possibly gzipped, or parquet.
        ids: Columns that are no genes; those that are there are returned.
        values_at_once: Values of a piece, before they become sparse: the memory it takes.

    Returns:
        The id columns, one row per cell; and cells × genes (CSR float32) in the same order.

    Raises:
        ValueError: The file is damaged, has no gene or one twice, or a value is missing or no
            number.
    """
    have = table_columns(path)
    genes = [c for c in have if c not in ids]
    if not genes:
        raise ValueError(f"Expected a column for each gene in {path.name}, got {', '.join(have)}")
    rows = max(1, values_at_once // len(genes))
    parts: list[csr_matrix] = []
    tables: list[pd.DataFrame] = []
    for chunk in _pieces(path, rows, have, genes):
        parts.append(_as_counts(chunk[genes], path.name))
        tables.append(chunk[[c for c in ids if c in have]])
    if not sum(len(table) for table in tables):
        raise ValueError(f"Expected a row for each cell in {path.name}, got none")
    return pd.concat(tables, ignore_index=True), AnnData(
        vstack(parts, format="csr"), var=pd.DataFrame(index=pd.Index(genes, dtype=object))
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Raises:
        ValueError: It is damaged, or holds something else.
    """
    found = _json.read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"Expected a JSON object in {path.name}, got {_json.shortened(found)}")
    return found


def positive_number(found: Mapping[str, Any], key: str, name: str) -> float | None:
    """A scale among what was read from the file ``name``; ``None`` if it has none.

    Raises:
        ValueError: It is no positive number.
    """
    if found.get(key) is None:
        return None
    value = finite_number(found, key, name)
    if value <= 0:
        raise ValueError(f"Expected {key!r} in {name} to be a positive number, got {value!r}")
    return value


def finite_number(found: Mapping[str, Any], key: str, name: str) -> float:
    """A number among what was read from the file ``name``, from JSON or AnnData's ``uns``.

    Raises:
        ValueError: It is none, or not finite.
    """
    value = found.get(key)
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"Expected {key!r} in {name} to be a finite number, got {value!r}")
    return float(value)


def numbers(table: pd.DataFrame, columns: Sequence[str], name: str) -> np.ndarray:
    """Columns of the file ``name`` as float64, ``[N, C]``; a missing value is NaN.

    Raises:
        ValueError: A value is no number; names it with its row.
    """
    check_numbers(table, columns, name)
    return table[list(columns)].to_numpy(np.float64, na_value=np.nan)


def finite_numbers(table: pd.DataFrame, columns: Sequence[str], name: str) -> np.ndarray:
    """:func:`numbers` of which none may be missing or infinite.

    Raises:
        ValueError: A value is no finite number; names it with its row.
    """
    found = numbers(table, columns, name)
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"Expected finite numbers in column {columns[column]!r} of {name}, got "
            f"{found[row, column]} in row {row}"
        )
    return found


def check_numbers(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    """Refuse columns of the file ``name`` that hold text.

    Raises:
        ValueError: Names the column and the first row that is no number.
    """
    for column in columns:
        values = table[column]
        if pd.api.types.is_bool_dtype(values):
            raise ValueError(f"Expected numbers in column {column!r} of {name}, got true and false")
        if isinstance(values.dtype, pd.DatetimeTZDtype) or values.dtype.kind in "mM":
            raise ValueError(f"Expected numbers in column {column!r} of {name}, got times")
        if not pd.api.types.is_numeric_dtype(values):
            bad = values[pd.to_numeric(values, errors="coerce").isna() & values.notna()]
            other = bad[[comma_advice(value) is None for value in bad]]
            if len(other):
                raise ValueError(
                    f"Expected numbers in column {column!r} of {name}, got "
                    f"{other.iloc[0]!r} in row {other.index[0]}"
                )
            if len(bad):
                raise ValueError(
                    f"Expected numbers that can be read in column {column!r} in {name}: "
                    f"{comma_advice(bad.iloc[0])}"
                )


def place_cells(
    adata: AnnData,
    table: pd.DataFrame,
    columns: Sequence[str],
    name: str,
    matrix: str,
    *,
    drop_unplaced: bool,
) -> tuple[AnnData, pd.DataFrame]:
    """Cells of a count matrix with their positions, and their rows of a table in the same order.

    Args:
        adata: The matrix.
        table: Metadata, indexed by cell id.
        columns: Names of x and y.
        name: File of the table, for the message.
        matrix: File of the matrix, for the message.
        drop_unplaced: Drop cells that the table lacks, or has without a place, with a warning,
            instead of refusing them.

    Returns:
        The cells with ``obsm["spatial"]``, in the table's unit; and the table.

    Raises:
        ValueError: See :func:`rows_of`; a coordinate is no number; names file and cells.
    """
    there = adata.obs_names.isin(table.index)
    ids = adata.obs_names[there] if drop_unplaced and there.any() else adata.obs_names
    rows = rows_of(table, ids, name, matrix)
    pos = numbers(rows, columns, name)
    finite = np.isfinite(pos).all(axis=1)
    if not (finite.all() or (drop_unplaced and finite.any())):
        bad = np.flatnonzero(~finite)
        raise ValueError(
            f"Expected finite coordinates in {', '.join(columns)} of {name}, got NaN or infinity "
            f"for {len(bad)} of {len(pos)} cells: {name_rows(ids, bad)}. Pass drop_unplaced=True "
            "to read(), or mend the table"
        )
    if int(finite.sum()) < adata.n_obs:
        placed = adata.obs_names.isin(ids[finite])
        lost = adata.obs_names[~placed]
        warnings.warn(
            f"Dropped {len(lost)} of {adata.n_obs} cells of {matrix} that have no place in {name}: "
            f"{', '.join(map(repr, lost[:5]))}",
            stacklevel=6,
        )
        adata = adata[placed].copy()
    if more := int((~table.index.isin(ids)).sum()):
        warnings.warn(
            f"{more} of {len(table)} cells of {name} are not in {matrix}: is that file complete?",
            stacklevel=6,
        )
    adata.obsm[keys.SPATIAL] = pos[finite]
    return adata, rows[finite]


def rows_of(table: pd.DataFrame, ids: pd.Index, name: str, matrix: str) -> pd.DataFrame:
    """Rows of the cells of a count matrix, in its order.

    Args:
        table: Metadata, indexed by cell id.
        ids: Cells of the matrix.
        name: File of the table, for the message.
        matrix: File of the matrix, for the message.

    Raises:
        ValueError: A cell of the matrix is not in the table, or is there twice.
    """
    missing = ids.difference(table.index)
    if len(missing):
        raise ValueError(
            f"Expected each cell of {matrix} in {name}, got none for {len(missing)} of {len(ids)}: "
            f"{', '.join(map(repr, missing[:5].tolist()))}. Pass drop_unplaced=True to read() to "
            "go on without these cells"
        )
    twice = table.index[table.index.duplicated() & table.index.isin(ids)].unique()
    if len(twice):
        raise ValueError(
            f"Expected one row for each cell in {name}, got several for {len(twice)}: "
            f"{', '.join(map(repr, twice[:5].tolist()))}"
        )
    return table.loc[ids]


def _as_counts(values: pd.DataFrame, name: str) -> csr_matrix:
    check_numbers(values, [str(c) for c in values], name)
    dense = values.to_numpy(np.float32)
    rows = np.flatnonzero(np.isnan(dense).any(axis=1))
    if len(rows):
        raise ValueError(
            f"Expected a count for each gene in {name}, got none in {len(rows)} rows (first: "
            f"{values.index[rows[:5]].tolist()}). Is the file incomplete?"
        )
    return csr_matrix(dense)


def _pieces(
    path: Path, rows: int, have: Sequence[str], numeric: Sequence[str]
) -> Iterator[pd.DataFrame]:
    """A table, so many rows at a time.

    Raises:
        ValueError: The file is damaged, or two columns have one name.
    """
    try:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=rows):
                    yield batch.replace_schema_metadata().to_pandas()
            return
        check_text(path)
        _check_last_row(path)
        header = pd.Series(have)
        if header.duplicated().any():  # pandas would call the second Gad1.1
            twice = ", ".join(header[header.duplicated()].unique()[:5])
            raise ValueError(f"two columns are called {twice}")
        marks = numerals_in(path, numeric)
        as_text = list(numeric) if marks else []  # 1.234 is no fraction beside 1.234,5
        with pd.read_csv(
            path,
            chunksize=rows,
            low_memory=False,
            sep=separator_of(path),
            compression=_packed(path),
            dtype=dict.fromkeys(as_text, str),
            **_named(path, have),
        ) as reader:
            for chunk in reader:
                yield _with_numbers(chunk, as_text, marks)
    except DAMAGED as err:
        raise unreadable(path, err) from err


def _with_numbers(
    table: pd.DataFrame, columns: Sequence[str], marks: Mapping[str, Numerals]
) -> pd.DataFrame:
    """A table of text whose columns of numbers are such, by the marks of each or of all.

    Raises:
        AmbiguousNumbersError: A field has other marks than those of the first rows.
    """
    found = {}
    for name in columns:
        of_all = max(marks.values(), key=lambda m: m.thousands is not None)
        values = as_numbers(table[name], marks.get(name, of_all))
        if values is None:
            number = re.compile(marks.get(name, of_all).pattern)
            fields = table[name].dropna().str.strip()
            other = next(field for field in fields if not number.match(field))
            raise AmbiguousNumbersError(
                f"{other!r} in column {name!r} is no number as those of the first rows: write "
                "numbers with decimal points, and without marks between thousands"
            )
        found[name] = values
    return table.assign(**found) if found else table


def check_text(path: Path) -> int:
    """Refuse a text file, possibly gzipped, that holds NUL bytes, where pandas would end a field.

    Returns:
        Number of its lines.

    Raises:
        ValueError: Names the line.
    """
    check_file(path, "a file of text")
    line = 1
    with open_text(path) as file:
        while block := file.read(_BYTES_AT_ONCE):
            at = block.find(b"\0")
            if at >= 0:
                line += block.count(b"\n", 0, at)
                raise ValueError(f"a NUL byte, which is no text, in line {line}")
            line += block.count(b"\n")
    return line


def _check_last_row(path: Path) -> None:
    """Refuse a csv file that ends in the middle of a row, whose other fields would be missing.

    A gzipped file that is cut cannot be read at all.

    Raises:
        ValueError: The last row has fewer fields than the header.
    """
    if is_gzipped(path):
        return
    with path.open("rb") as file:
        first = file.readline()
        file.seek(max(len(first), path.stat().st_size - _BYTES_AT_ONCE))
        end = file.read()
    if end[-1:] in (b"\n", b"\r", b""):
        return
    last = end.replace(b"\r", b"\n").rpartition(b"\n")[2]
    try:
        sep = separator_of(path)
        rows = (csv.reader([row.decode()], delimiter=sep) for row in (first, last))
        wanted, got = (len(next(row, [])) for row in rows)
    except csv.Error:  # a field of many bytes
        return
    if got < wanted:
        raise ValueError(f"a last row of {got} fields of {wanted}")


def unreadable(path: Path, err: Exception) -> ValueError:
    """Message about a table that could not be read."""
    if isinstance(err, OtherTextError):
        return ValueError(f"Expected a table that can be read in {path.name}: {err}")
    if isinstance(err, UnicodeDecodeError):
        return ValueError(
            f"Expected a readable table of UTF-8 text, got {path.name} ({reason(err)}): save it as "
            "UTF-8, or, if it is damaged, copy it again"
        )
    return ValueError(
        f"Expected a readable table, got {path.name} ({reason(err)}). The file is damaged or "
        "incomplete: copy it again"
    )
