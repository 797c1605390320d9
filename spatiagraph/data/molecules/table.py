"""Molecule tables of any length, read some rows at a time, with cells and genes as numbers."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spatiagraph.data.molecules.layouts import Layout, layout_of
from spatiagraph.data.read.dialect import dialect_of, is_gzipped
from spatiagraph.data.read.molecules import as_text
from spatiagraph.data.read.numerals import AmbiguousNumbersError
from spatiagraph.data.read.tables import (
    DAMAGED,
    check_numbers,
    check_table,
    find_table,
    table_columns,
    unreadable,
)
from spatiagraph.data.transcripts import UNASSIGNED, as_flags

BATCH = 1 << 20
"""Rows that are read at a time."""
_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".zarr")
_FLAGS = ("is_gene", "is_control", "overlaps_nucleus")


class MoleculeBatch(NamedTuple):
    """Rows of a molecule table.

    Attributes:
        values: Every other column, ``[M]`` each: ``x_um`` and ``y_um``, and where the table has
            them ``z_um``, ``z_plane``, ``qv``, ``is_gene`` and ``overlaps_nucleus``.
        gene: Number of each molecule's gene in ``MoleculeTable.genes``, ``[M]``.
        cell: Number of its cell in ``MoleculeTable.cells``, ``[M]``; -1 for none.
    """

    values: dict[str, NDArray]
    gene: NDArray[np.int64]
    cell: NDArray[np.int64]


class MoleculeTable:
    """Molecule table of a machine, or a plain one, that is never held as a whole.

    Args:
        path: Xenium ``transcripts``, CosMx ``tx_file`` or MERSCOPE ``detected_transcripts``
            (parquet, csv or csv.gz), a table with ``x`` and ``y`` (or ``x_um`` and ``y_um``) and
            ``gene``, or a SpatialData store (``.zarr``) with one element of molecules.
        mpp: µm per unit of the coordinates: of CosMx, where the folder does not tell it, and of
            tables and stores that are not in µm.
        columns: Names of ours that are read beside place, gene and cell; all by default.
        batch_size: Rows that are read at a time: bounds memory, not the result.

    Attributes:
        genes: Names of genes in the order they were met in; grows while the table is read.
        cells: Names of cells, likewise.
        has_cells: Whether the table says which cell a molecule is in.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no table of molecules, or a column is there twice or holds lists; when
            read, if it is damaged, or a gene, position or flag is missing or no such.
    """

    def __init__(
        self,
        path: Path,
        mpp: float | None = None,
        columns: Collection[str] | None = None,
        batch_size: int = BATCH,
    ):
        self._batch_size = batch_size
        self.path = find_molecules(path)
        self._layout: Layout = layout_of(self.path, mpp).only(columns)
        for file in self._layout.files:
            check_table(file, table_columns(file), set(self._layout.columns))
        self.genes: list[str] = []
        self.cells: list[str] = []
        self._gene_numbers: dict[str, int] = {}
        self._cell_numbers: dict[str, int] = {}
        self.has_cells = "cell_id" in self._layout.columns.values()

    def batches(self) -> Iterator[MoleculeBatch]:
        """Rows of the table, in its order."""
        first = 0
        for batch in self._read():
            yield self._batch(batch, first)
            first += len(batch)
        if not first:
            raise ValueError(
                f"Expected molecules in {self.path.name}, got none. Is the file complete?"
            )

    def _read(self) -> Iterator[pa.RecordBatch]:
        names = list(self._layout.columns)
        for path in self._layout.files:
            try:
                if path.suffix.lower() == ".parquet":
                    with pq.ParquetFile(  # a buffer ahead would hold the whole file by its end
                        path, pre_buffer=False, page_checksum_verification=True
                    ) as file:
                        yield from file.iter_batches(self._batch_size, columns=names)
                    continue
                named = ("cell_id", "gene")
                text = {k: pa.string() for k, v in self._layout.columns.items() if v in named}
                have = table_columns(path)
                sep, decimal, thousands = dialect_of(path, [n for n in names if n not in text])
                if thousands is not None:
                    raise AmbiguousNumbersError("1,234 has a mark between thousands: write 1234")
                kinds = pc.ConvertOptions(
                    include_columns=names, column_types=text, decimal_point=decimal
                )
                marks = pc.ParseOptions(delimiter=sep)
                blocks = pc.ReadOptions(  # bytes of about a row
                    block_size=self._batch_size * 32, column_names=have, skip_rows=1
                )
                zipped = "gzip" if is_gzipped(path) else None
                with pa.input_stream(str(path), compression=zipped) as stream:
                    yield from pc.open_csv(stream, blocks, marks, kinds)
            except DAMAGED as err:
                raise unreadable(path, err) from err

    def _batch(self, batch: pa.RecordBatch, first: int) -> MoleculeBatch:
        ours = {name: batch.column(theirs) for theirs, name in self._layout.columns.items()}
        values = {
            name: self._flags(column, name, first)
            if name in _FLAGS
            else self._numbers(column, name)
            for name, column in ours.items()
            if name not in ("gene", "cell_id", "fov")
        }
        for axis in ("x_um", "y_um", "z_um"):
            if axis in values and not np.isfinite(values[axis]).all():
                wrong = first + int(np.flatnonzero(~np.isfinite(values[axis]))[0])
                raise ValueError(
                    f"Expected a finite position of each molecule in {self.path.name}, got "
                    f"{axis} {values[axis][wrong - first]} in row {wrong:,}: drop such rows"
                )
        for axis in ("x_um", "y_um"):
            if self._layout.mpp != 1:
                values[axis] = values[axis].astype(np.float64) * self._layout.mpp
        if "is_control" in values:
            values["is_gene"] = ~values.pop("is_control")
        gene = self._codes(ours["gene"], "gene", self._note_gene)
        if (gene < 0).any():
            raise ValueError(
                f"Expected a gene for each molecule in {self.path.name}, got none in row "
                f"{first + int(np.argmin(gene)):,}: drop such rows"
            )
        if not self.has_cells:
            cell = np.full(len(batch), -1)
        elif "fov" in ours:  # cells are numbered anew in every field of view
            cell = self._cells_of_fields(ours["cell_id"], ours["fov"])
        else:
            cell = self._codes(ours["cell_id"], "cell_id", self._note_cell)
        return MoleculeBatch(values, gene, cell)

    def _numbers(self, column: pa.Array, name: str) -> NDArray:
        frame = pd.DataFrame({name: column.to_pandas()})
        check_numbers(frame, [name], self.path.name)
        values = frame[name]
        if not pd.api.types.is_numeric_dtype(values):  # numbers as text
            values = pd.to_numeric(values)
        kind = np.float32 if values.dtype == np.float32 else np.float64
        found: NDArray = values.to_numpy(kind)
        return found

    def _flags(self, column: pa.Array, name: str, first: int) -> NDArray[np.bool_]:
        rows = range(first, first + len(column))
        values = pd.Series(column.to_pandas().to_numpy(), rows, name=name)
        return as_flags(values, f" of {self.path.name}").to_numpy()

    def _codes(self, column: pa.Array, name: str, note: Callable[[str], int]) -> NDArray[np.int64]:
        """Number of each value, whose distinct ones are numbered by ``note``."""
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        distinct = as_text(column.dictionary.to_pandas().rename(name), f" of {self.path.name}")
        number = np.array([*map(note, distinct), -1], dtype=np.int64)
        code = column.indices.fill_null(len(distinct)) if column.null_count else column.indices
        return number[code.to_numpy(zero_copy_only=False)]

    def _cells_of_fields(self, cell: pa.Array, fov: pa.Array) -> NDArray[np.int64]:
        names: tuple[list[str], list[str]] = ([], [])
        codes = []
        for column, own, key in ((cell, names[0], "cell_ID"), (fov, names[1], "fov")):
            seen: dict[str, int] = {}

            def note(name: str, seen: dict[str, int] = seen, own: list[str] = own) -> int:
                if name not in seen:
                    seen[name] = len(own)
                    own.append(name)
                return -1 if name == "" else seen[name]

            codes.append(self._codes(column, key, note))
        both = np.where((codes[0] < 0) | (codes[1] < 0), -1, codes[0] * len(names[1]) + codes[1])
        distinct, code = np.unique(both, return_inverse=True)
        number = [
            -1 if pair < 0 else self._note_cell(names[0][a], f"_{names[1][b]}")
            for pair, a, b in zip(distinct, *np.divmod(distinct, len(names[1])), strict=True)
        ]
        return np.array(number)[code]

    def _note_gene(self, name: str) -> int:
        if name == "":
            return -1
        if name not in self._gene_numbers:
            self._gene_numbers[name] = len(self.genes)
            self.genes.append(name)
        return self._gene_numbers[name]

    def _note_cell(self, name: str, ending: str = "") -> int:
        if name in UNASSIGNED or name in self._layout.no_cell:
            return -1
        name += ending
        if name not in self._cell_numbers:
            self._cell_numbers[name] = len(self.cells)
            self.cells.append(name)
        return self._cell_numbers[name]


def find_molecules(path: Path) -> Path:
    """The molecule table that is meant: the file itself, or that of a machine's folder.

    Args:
        path: File, SpatialData store, or folder of Xenium, CosMx or MERSCOPE.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no table.
    """
    if path.name.lower().endswith(".zarr.zip"):
        raise ValueError(
            f"Expected a table of molecules, got {path.name}, which is made for viewing: take "
            "transcripts.parquet of the same folder"
        )
    if path.is_dir() and path.suffix.lower() != ".zarr":
        stems = ("transcripts", "*detected_transcripts", "*tx_file")
        found = next((table for stem in stems if (table := find_table(path, stem))), None)
        if found is None:
            raise FileNotFoundError(
                f"Expected transcripts, detected_transcripts or tx_file (.parquet, .csv) in "
                f"{path}, found none of them"
            )
        return found
    if not path.exists():
        raise FileNotFoundError(f"Expected molecules at {path}, found no such file")
    if not path.name.lower().endswith(_SUFFIXES):
        raise ValueError(f"Expected molecules as .parquet, .csv, .csv.gz or .zarr, got {path.name}")
    return path
