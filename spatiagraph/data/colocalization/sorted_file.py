"""Molecule tables of any length → one parquet file sorted by cell, in bounded memory.

Two passes over the table. The first counts the molecules of every cell and the genes it has; the
second deals the rows that are kept to buckets of neighbouring cells, which are sorted one by one. A
row group of the result holds whole cells, so that later passes read every cell once.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spatiagraph._files import replaced_file
from spatiagraph.data.colocalization.molecules import CellMolecules, cell_molecules
from spatiagraph.data.read.molecules import MERSCOPE, PLAIN, XENIUM, as_text
from spatiagraph.data.read.tables import (
    DAMAGED,
    check_numbers,
    check_table,
    find_table,
    table_columns,
    unreadable,
)
from spatiagraph.data.transcripts import CONTROL_PREFIXES, UNASSIGNED, as_flags, is_control

_BATCH = 1 << 20  # rows that are read at a time
_BUCKET = 1 << 22  # rows that are sorted at a time
_STEPS = ("quality", "control", "unassigned", "min_counts", "min_genes")


def sort_molecules(
    path: Path,
    out: Path,
    *,
    min_qv: float = 20.0,
    min_counts: int = 30,
    min_genes: int = 10,
    control_prefixes: Sequence[str] = CONTROL_PREFIXES,
    bucket_size: int = _BUCKET,
    batch_size: int = _BATCH,
) -> pd.DataFrame:
    """Filter a molecule table and write it sorted by cell, without ever holding it.

    Steps and thresholds are those of :func:`~spatiagraph.data.transcripts.filter_transcripts`, and
    so is the result, but for its order. Sorting the result again changes nothing.

    Args:
        path: Table (parquet, csv or csv.gz) in µm, with the columns of Xenium, MERSCOPE, or ``x``
            and ``y`` (or ``x_um`` and ``y_um``), ``gene``, ``cell_id`` and maybe ``z`` and ``qv``.
        out: The parquet file to write: ``cell_id``, ``gene``, ``x_um``, ``y_um``, and ``z_um`` and
            ``qv`` where the table has them.
        min_qv: Least quality.
        min_counts: Least number of molecules of a cell.
        min_genes: Least number of different genes of a cell.
        control_prefixes: How names of control features begin, in any case.
        bucket_size: Molecules that are sorted at a time: bounds memory, not the result.
        batch_size: Molecules that are read at a time, likewise.

    Returns:
        Molecules and cells that each step removed, as ``filter_transcripts`` reports them.

    Raises:
        ValueError: If the table is damaged, columns are missing, a position is not finite, or no
            cell is left.
        DiskFullError: If there is no space for it.
    """
    columns = _columns(path)
    table = _Table(path, columns, min_qv, tuple(control_prefixes), batch_size)
    keep, bucket, removed = _count(table, min_counts, min_genes, bucket_size)
    if not keep.any():
        raise ValueError(
            f"Expected cells with at least {min_counts} molecules of {min_genes} genes in "
            f"{path.name}, got none: lower min_counts and min_genes, or min_qv"
        )
    with replaced_file(out) as new, TemporaryDirectory(dir=new.parent, prefix=".sorting") as folder:
        parts = _split_by_bucket(table, keep, bucket, Path(folder))
        _merge(parts, new)
    return removed


def find_molecules(path: Path) -> Path:
    """The molecule table that is meant: the file itself, or that of a Xenium or MERSCOPE folder.

    Args:
        path: File or folder.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no table.
    """
    if path.is_dir():
        found = find_table(path, "transcripts") or find_table(path, "*detected_transcripts")
        if found is None:
            raise FileNotFoundError(
                f"Expected transcripts or detected_transcripts (.parquet, .csv) in {path}, found "
                "neither"
            )
        return found
    if not path.exists():
        raise FileNotFoundError(f"Expected molecules at {path}, found no such file")
    if not path.name.endswith((".parquet", ".csv", ".csv.gz")):
        raise ValueError(f"Expected molecules as .parquet, .csv or .csv.gz, got {path.name}")
    return path


def read_sorted_molecules(path: Path) -> CellMolecules:
    """All molecules of a sorted file, filtered no further.

    Args:
        path: File of :func:`sort_molecules`.

    Raises:
        ValueError: If it is none.
    """
    genes = _genes(path)
    table = pq.read_table(path).to_pandas()
    return cell_molecules(table, min_qv=-np.inf, min_counts=1, min_genes=1, genes=genes)


def iterate_molecules(path: Path) -> Iterator[CellMolecules]:
    """Molecules of a sorted file, some whole cells at a time, filtered no further.

    Genes are numbered alike in all parts.

    Args:
        path: File of :func:`sort_molecules`.

    Raises:
        ValueError: If it is none.
    """
    genes = _genes(path)
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            part = file.read_row_group(group).to_pandas()
            yield cell_molecules(part, min_qv=-np.inf, min_counts=1, min_genes=1, genes=genes)


def _genes(path: Path) -> list[str]:
    noted = (pq.read_schema(path).metadata or {}).get(b"spatiagraph.genes")
    if noted is None:
        raise ValueError(f"Expected a file of sort_molecules, {path.name} is none")
    return noted.decode().split("\n")


class _Table:
    """A molecule table that is read in batches, with a number for each cell and gene seen."""

    def __init__(
        self,
        path: Path,
        columns: dict[str, str],
        min_qv: float,
        prefixes: Sequence[str],
        batch_size: int,
    ):
        self.path, self.columns, self.min_qv, self.prefixes = path, columns, min_qv, prefixes
        self.batch_size = batch_size
        self.cells: dict[str, int] = {}
        self.genes: dict[str, int] = {}
        self.control: list[bool] = []

    def batches(self) -> Iterator[tuple[pd.DataFrame, NDArray[np.int64], NDArray[np.int64]]]:
        """Rows, the cell of each (-1 for none) and its gene."""
        first = 0
        try:
            for batch in self._read():
                frame = batch.to_pandas().rename(columns=self.columns)
                numbers = [c for c in ("x_um", "y_um", "z_um", "qv") if c in frame]
                check_numbers(frame, numbers, self.path.name)
                for flag in ("is_gene", "is_control"):
                    if flag in frame:
                        values = frame[flag].set_axis(range(first, first + len(frame)))
                        frame[flag] = as_flags(values, f" of {self.path.name}").to_numpy()
                pos = frame[[c for c in ("x_um", "y_um", "z_um") if c in frame]].to_numpy(float)
                wrong = np.flatnonzero(~np.isfinite(pos).all(1))
                if len(wrong) or frame["gene"].isna().any():
                    raise ValueError(
                        f"Expected a gene and a finite position of each molecule in "
                        f"{self.path.name}, got none in a row from {first:,} on: drop these rows"
                    )
                first += len(frame)
                for name in ("gene", "cell_id"):
                    frame[name] = as_text(frame[name], f" of {self.path.name}")
                gene = self._numbers(frame["gene"], self.genes, self._note_gene)
                cell = self._numbers(frame["cell_id"], self.cells)
                nowhere = [self.cells[name] for name in UNASSIGNED if name in self.cells]
                cell[np.isin(cell, nowhere)] = -1
                yield frame, cell, gene
        except DAMAGED as err:
            if isinstance(err, ValueError) and str(err).startswith("Expected"):
                raise
            raise unreadable(self.path, err) from err

    def masks(
        self, frame: pd.DataFrame, cell: NDArray[np.int64], gene: NDArray[np.int64]
    ) -> list[NDArray[np.bool_]]:
        """Rows that are left after each step that looks at rows alone."""
        kept = np.ones(len(frame), dtype=bool)
        if "qv" in frame:
            kept = frame["qv"].to_numpy(float) >= self.min_qv
        masks = [kept]
        control = np.asarray(self.control)[gene]
        if "is_gene" in frame:
            control |= ~frame["is_gene"].to_numpy(bool)
        if "is_control" in frame:
            control |= frame["is_control"].to_numpy(bool)
        masks.append(masks[-1] & ~control)
        return [*masks, masks[-1] & (cell >= 0)]

    def _read(self) -> Iterator[pa.RecordBatch]:
        names = list(self.columns)
        if self.path.suffix == ".parquet":
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(self.batch_size, columns=names)
            return
        text = {n: pa.string() for n in names if self.columns[n] in ("cell_id", "gene")}
        options = pc.ConvertOptions(include_columns=names, column_types=text)
        with pa.input_stream(str(self.path)) as stream:
            yield from pc.open_csv(
                stream, pc.ReadOptions(block_size=self.batch_size * 32), convert_options=options
            )

    def _note_gene(self, name: str) -> None:
        if "\n" in name:  # names are noted one a line
            raise ValueError(
                f"Expected names of genes of one line in {self.path.name}, got {name!r:.60}: "
                "rename it"
            )
        self.control.append(bool(is_control([name], self.prefixes)[0]))

    @staticmethod
    def _numbers(
        values: pd.Series, known: dict[str, int], note: Callable[[str], None] | None = None
    ) -> NDArray[np.int64]:
        code, names = pd.factorize(values)
        number = np.empty(len(names) + 1, dtype=np.int64)
        for i, name in enumerate(names):
            if name not in known:
                known[name] = len(known)
                if note is not None:
                    note(name)
            number[i] = known[name]
        number[-1] = -1
        return number[code]


def _columns(path: Path) -> dict[str, str]:
    """Columns of a table → ours."""
    have = table_columns(path)
    needed = {"x_um", "y_um", "gene", "cell_id"}
    plain = {k: v for k, v in PLAIN.items() if f"{k}_um" not in have}
    for maker in (XENIUM, MERSCOPE, plain):
        found = {k: v for k, v in maker.items() if k in have}
        if needed <= set(found.values()):
            kept = ("x_um", "y_um", "z_um", "gene", "cell_id", "qv", "is_gene", "is_control")
            chosen = {k: v for k, v in found.items() if v in kept}
            check_table(path, have, set(chosen))
            return chosen
    raise ValueError(
        f"Expected columns of molecules in cells in {path.name}: x_location, y_location, "
        "feature_name and cell_id (Xenium); global_x, global_y, gene and cell_id (MERSCOPE); or "
        f"x, y, gene and cell_id, all in µm; got {', '.join(have)}"
    )


def _count(
    table: _Table, min_counts: int, min_genes: int, bucket_size: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64], pd.DataFrame]:
    """Cells to keep, the bucket of each, and what every step removes."""
    rows = np.zeros(4, dtype=np.int64)  # before all steps, and after each of the first three
    counts = np.zeros((4, 0), dtype=np.int64)
    pairs = np.empty(0, dtype=np.int64)
    width = 1 << 20  # more genes than any panel has
    fresh: list[NDArray[np.int64]] = []
    for frame, cell, gene in table.batches():
        masks = [np.ones(len(frame), dtype=bool), *table.masks(frame, cell, gene)]
        rows += [int(mask.sum()) for mask in masks]
        counts = np.pad(counts, ((0, 0), (0, len(table.cells) - counts.shape[1])))
        for step, mask in enumerate(masks):
            counts[step] += np.bincount(cell[mask & (cell >= 0)], minlength=len(table.cells))
        fresh.append(np.unique(cell[masks[-1]] * width + gene[masks[-1]]))
        if sum(map(len, fresh)) > max(len(pairs), _BUCKET):
            pairs, fresh = np.unique(np.concatenate([pairs, *fresh])), []
    pairs = np.unique(np.concatenate([pairs, *fresh]))
    num_genes = np.bincount(pairs // width, minlength=counts.shape[1])
    enough = counts[3] >= max(min_counts, 1)
    keep = enough & (num_genes >= min_genes)
    number = np.count_nonzero(counts, axis=1)
    left = [*rows, counts[3][enough].sum(), counts[3][keep].sum()]
    cells = [*number, enough.sum(), keep.sum()]
    report = pd.DataFrame(
        {"molecules": -np.diff(left), "cells": -np.diff(cells)}, index=list(_STEPS)
    )
    names = np.array(list(table.cells), dtype=object)
    order = np.argsort(names, kind="stable")
    bucket = np.empty(len(names), dtype=np.int64)
    before = np.cumsum(np.where(keep, counts[3], 0)[order])
    bucket[order] = before // bucket_size
    return keep, bucket, report


def _split_by_bucket(
    table: _Table, keep: NDArray[np.bool_], bucket: NDArray[np.int64], folder: Path
) -> list[Path]:
    """Write the rows of kept cells to the file of their bucket."""
    writers: dict[int, pq.ParquetWriter] = {}
    paths: dict[int, Path] = {}
    try:
        for frame, cell, gene in table.batches():
            kept = table.masks(frame, cell, gene)[-1]
            kept[kept] = keep[cell[kept]]
            frame = frame.drop(columns=["is_gene", "is_control"], errors="ignore")
            part, number = frame[kept], bucket[cell[kept]]
            order = np.argsort(number, kind="stable")
            numbers, start = np.unique(number[order], return_index=True)
            for n, rows in zip(numbers.tolist(), np.split(order, start[1:]), strict=True):
                arrow = pa.Table.from_pandas(part.iloc[rows], preserve_index=False)
                if n not in writers:
                    paths[n] = folder / f"{n}.parquet"
                    writers[n] = pq.ParquetWriter(paths[n], arrow.schema)
                writers[n].write_table(arrow)
    finally:
        for writer in writers.values():
            writer.close()
    return [paths[n] for n in sorted(paths)]


def _merge(parts: Sequence[Path], out: Path) -> None:
    """Sort each bucket and write it as a row group."""
    names: set[str] = set()
    for path in parts:
        names.update(pq.read_table(path, columns=["gene"])["gene"].unique().to_pylist())
    note = {b"spatiagraph.genes": "\n".join(sorted(names)).encode()}
    writer = None
    try:
        for path in parts:
            frame = pq.read_table(path).to_pandas()
            axes = [c for c in ("x_um", "y_um", "z_um") if c in frame]
            frame = frame.sort_values(["cell_id", *axes, "gene"], kind="stable")
            first = ["cell_id", "gene", *axes]
            frame = frame[[*first, *(c for c in frame if c not in first)]]
            arrow = pa.Table.from_pandas(frame, preserve_index=False)
            arrow = arrow.replace_schema_metadata(note)
            writer = pq.ParquetWriter(out, arrow.schema) if writer is None else writer
            writer.write_table(arrow, row_group_size=len(frame))
    finally:
        if writer is not None:
            writer.close()
