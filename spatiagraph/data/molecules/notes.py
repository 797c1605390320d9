"""Parquet files of ours: what a file holds is noted in it, and checked when it is read."""

import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spatiagraph import _json
from spatiagraph._files import check_file
from spatiagraph.data.read.tables import DAMAGED, unreadable

RowsOf: TypeAlias = Callable[[int, NDArray, NDArray], NDArray[np.bool_]]
"""Rows of a row group to keep, from its number, ``x_um`` and ``y_um``."""
_PLACE = ("x_um", "y_um")
_KEY = b"spatiagraph.molecules"


class Note(_json.Schema):
    """Contents of a file of molecules.

    Attributes:
        order: Molecules of a row group: those of a tile, or of some cells.
        columns: Names of the columns.
        genes: Names of genes in alphabetical order.
        num_cells: Cells that have molecules.
        rows: Molecules of each row group.
        bounds_um: Least and greatest x, least and greatest y of each row group, in tiles.
    """

    order: Literal["tiles", "cells"]
    columns: list[str]
    genes: list[str]
    num_cells: int
    rows: list[int]
    bounds_um: list[list[float]]


class NotedWriter:
    """Writer of a parquet file with checksums, whose row groups are noted at the end.

    Args:
        path: The file.
        order: What a row group is.
    """

    def __init__(self, path: Path, order: Literal["tiles", "cells"]):
        self._path, self._order = path, order
        self._writer: pq.ParquetWriter | None = None
        self._columns: list[str] = []
        self._rows: list[int] = []
        self._bounds: list[list[float]] = []

    def write(
        self, columns: dict[str, NDArray | pa.Array], bounds_um: Sequence[float] | None = None
    ) -> None:
        """Write a row group.

        Args:
            columns: The same columns each time, ``[M]`` each.
            bounds_um: Of a tile.
        """
        table = pa.table(columns)
        if self._writer is None:
            self._columns = table.column_names
            named = [c for c in ("cell_id", "gene") if c in columns]
            self._writer = pq.ParquetWriter(
                self._path, table.schema, use_dictionary=named, compression="zstd",
                write_page_checksum=True,
            )  # fmt: skip
        self._writer.write_table(table, row_group_size=max(len(table), 1))
        self._rows.append(len(table))
        if bounds_um is not None:
            self._bounds.append([float(v) for v in bounds_um])

    def close(self, genes: Sequence[str], num_cells: int) -> None:
        """Note what was written.

        Args:
            genes: Names of genes in alphabetical order.
            num_cells: Cells that have molecules.
        """
        if self._writer is None:
            return
        note = Note(
            order=self._order, columns=self._columns, genes=list(genes), num_cells=num_cells,
            rows=self._rows, bounds_um=self._bounds,
        )  # fmt: skip
        text = json.dumps(note.model_dump(), ensure_ascii=False).encode()
        signed = f"{zlib.crc32(text):08x}".encode() + text
        self._writer.add_key_value_metadata({_KEY: signed})
        self._writer.close()

    def abandon(self) -> None:
        """Close the file of a writing that failed."""
        if self._writer is not None:
            self._writer.close()


def read_note(path: Path, order: Literal["tiles", "cells"], maker: str) -> Note:
    """Read the contents of a file of ours from its note, without its molecules.

    Args:
        path: The file.
        order: What its row groups should be.
        maker: The function that writes such files, for the message.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or another kind of file.
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected molecules at {path}, found no such file")
    check_file(path, "molecules")
    try:
        with pq.ParquetFile(path) as file:
            held = file.metadata
            signed = (held.metadata or {}).get(_KEY)
            columns = file.schema_arrow.names
            rows = [held.row_group(i).num_rows for i in range(held.num_row_groups)]
    except DAMAGED as err:
        raise unreadable(path, err) from err
    if signed is None:
        raise ValueError(f"Expected a file of {maker}, {path.name} is none: make it with {maker}")
    crc, text = signed[:8], signed[8:]
    if crc != f"{zlib.crc32(text):08x}".encode():
        raise unreadable(path, ValueError("a note that is not what was written"))
    note = Note.model_validate(_json.parse_json(text, f"the note of {path.name}"))
    if note.order != order:
        raise ValueError(f"Expected a file of {maker}, {path.name} is in the order of {note.order}")
    if note.rows != rows or note.columns != columns:
        raise unreadable(path, ValueError("other rows or columns than were written"))
    return note


def read_groups(
    path: Path,
    note: Note,
    groups: Sequence[int],
    columns: Sequence[str] | None = None,
    rows: RowsOf | None = None,
) -> Iterator[tuple[int, pa.Table]]:
    """Row groups of a file of ours one by one, names of genes and cells as dictionaries.

    Args:
        path: The file.
        note: What it holds.
        groups: Numbers of row groups, in the order they are read in.
        columns: Columns that are read; all by default.
        rows: Rows to keep of a row group, of which columns are then read one at a time.

    Raises:
        ValueError: It is damaged.
    """
    every = note.columns if columns is None else columns
    named = [c for c in ("gene", "cell_id") if c in note.columns]
    try:
        with pq.ParquetFile(
            path, read_dictionary=named, pre_buffer=False, page_checksum_verification=True
        ) as file:

            def read(number: int, names: Sequence[str]) -> pa.Table:
                part = file.read_row_group(number, columns=names, use_threads=False)
                if len(part) != note.rows[number]:
                    raise ValueError("other rows than were written")
                return part

            for number in groups:
                if rows is None:
                    yield number, read(number, every)
                    continue
                place = read(number, _PLACE)
                kept = pa.array(rows(number, *(place[name].to_numpy() for name in _PLACE)))
                parts = {
                    name: (place if name in _PLACE else read(number, [name]))[name].filter(kept)
                    for name in every
                }
                yield number, pa.table(parts)
    except DAMAGED as err:
        raise unreadable(path, err) from err
