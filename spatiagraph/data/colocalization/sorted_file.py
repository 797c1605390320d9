"""Molecule tables of any length → one parquet file sorted by cell, in bounded memory.

Two passes over the table. The first counts the molecules of every cell; the second deals the rows
of cells with enough of them to buckets of neighbouring cells, which are sorted one by one. A row
group of the result holds whole cells, so that later passes read every cell once.
"""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from spatiagraph._files import replaced_file
from spatiagraph.data.colocalization.molecules import CellMolecules, check_extent
from spatiagraph.data.molecules.buckets import Buckets, bucket_of
from spatiagraph.data.molecules.notes import NotedWriter, read_groups, read_note
from spatiagraph.data.molecules.outlines import CellOutlines
from spatiagraph.data.molecules.table import BATCH, MoleculeBatch, MoleculeTable
from spatiagraph.data.read.tables import unreadable
from spatiagraph.data.transcripts import CONTROL_PREFIXES, is_control

_AT_ONCE = 1 << 20  # rows that are sorted at a time
_COLUMNS = ("z_um", "qv", "is_gene", "is_control")
_AXES = ("x_um", "y_um", "z_um")


def sort_molecules(
    path: Path,
    out: Path,
    *,
    min_qv: float = 20.0,
    min_counts: int = 30,
    min_genes: int = 10,
    control_prefixes: Sequence[str] = CONTROL_PREFIXES,
    outlines: CellOutlines | None = None,
    max_extent_um: float = 80.0,
    mpp: float | None = None,
    bucket_size: int = _AT_ONCE,
    batch_size: int = BATCH,
) -> pd.DataFrame:
    """Filter a molecule table and write it sorted by cell, without ever holding it.

    Steps and thresholds are those of :func:`~spatiagraph.data.transcripts.filter_transcripts`, and
    so is the result, but for its order. Sorting the result again changes nothing.

    Args:
        path: Table, SpatialData store or folder that says which cell a molecule is in, see
            :class:`~spatiagraph.data.molecules.MoleculeTable`; or a file of
            :class:`~spatiagraph.data.molecules.Molecules`.
        out: The parquet file to write: ``cell_id``, ``gene``, ``x_um``, ``y_um``, and ``z_um`` and
            ``qv`` where the table has them.
        min_qv: Least quality.
        min_counts: Least number of molecules of a cell.
        min_genes: Least number of different genes of a cell.
        control_prefixes: How names of control features begin, in any case.
        outlines: Outlines of the cells: molecules outside of them or too near are left out.
        max_extent_um: Longest side of half of the cells, at most.
        mpp: µm per unit of the coordinates, where they are not µm.
        bucket_size: Molecules that are sorted at a time: bounds memory, not the result.
        batch_size: Molecules that are read at a time, likewise.

    Returns:
        Molecules and cells that each step removed, as ``filter_transcripts`` reports them.

    Raises:
        ValueError: If the table is damaged, columns are missing, a position is not finite or not
            in µm, outlines are of other cells, or no cell is left.
        DiskFullError: If there is no space for it.
    """
    table = MoleculeTable(path, mpp, _COLUMNS, batch_size)
    if not table.has_cells:
        raise ValueError(
            f"Expected columns of molecules in cells in {table.path.name}, got none that names "
            "the cell of a molecule, such as cell_id"
        )
    steps = _Steps(table, min_qv, control_prefixes, outlines)
    counted = _count(table, steps)
    if outlines is not None:
        outlines.check_any(table.cells)
    enough = counted.of_cells[-1] >= max(min_counts, 1)
    names = np.array(table.cells, dtype=object)
    order = np.argsort(names, kind="stable")
    bucket = np.empty(len(names), dtype=np.int64)
    bucket[order] = bucket_of(np.where(enough, counted.of_cells[-1], 0)[order], bucket_size)
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    with (
        replaced_file(out) as new,
        TemporaryDirectory(dir=new.parent, prefix=".sorting") as folder,
        Buckets(Path(folder)) as buckets,
    ):
        for batch in table.batches():
            kept = steps.masks(batch)[-1]
            kept[kept] = enough[batch.cell[kept]]
            values = {k: v[kept] for k, v in batch.values.items() if k != "is_gene"}
            cell = batch.cell[kept]
            columns = {"cell": rank[cell], "gene": batch.gene[kept], **values}
            buckets.add(columns, bucket[cell])
        merged = _merge(table, buckets, names[order], min_genes, new)
        if not merged.cells:
            raise ValueError(
                f"Expected cells with at least {min_counts} molecules of {min_genes} genes in "
                f"{path.name}, got none: lower min_counts and min_genes, or min_qv"
            )
        check_extent(np.concatenate(merged.extents), max_extent_um, path.name)
    rows = [*counted.rows, counted.of_cells[-1][enough].sum(), merged.rows]
    cells = [*np.count_nonzero(counted.of_cells, axis=1), enough.sum(), merged.cells]
    return pd.DataFrame(
        {"molecules": -np.diff(rows), "cells": -np.diff(cells)},
        index=[*steps.names, "min_counts", "min_genes"],
    )


class SortedMolecules:
    """Molecules of a file sorted by cell, of which some whole cells are in memory at a time.

    Args:
        path: File of :func:`sort_molecules`.

    Attributes:
        path: The file.
        genes: Names of genes, ``[G]``, in alphabetical order.
        num_cells: Number of cells.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: If it is damaged, or none of :func:`sort_molecules`.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._note = read_note(self.path, "cells", "sort_molecules")
        self.genes = np.array(self._note.genes, dtype=object)
        self.num_cells = self._note.num_cells

    @property
    def num_molecules(self) -> int:
        """Number of molecules."""
        return sum(self._note.rows)

    @cached_property
    def cell_ids(self) -> np.ndarray:
        """Name of each cell, ``[N]``, in alphabetical order; one column is read for them."""
        groups = range(len(self._note.rows))
        ids = [
            part["cell_id"].combine_chunks().dictionary.to_pylist()
            for _, part in read_groups(self.path, self._note, groups, ["cell_id"])
        ]
        return np.array(sum(ids, []), dtype=object)

    def parts(self) -> Iterator[CellMolecules]:
        """Some whole cells at a time, in alphabetical order; genes have the same number in all.

        Raises:
            ValueError: If the file is damaged.
        """
        number = {name: i for i, name in enumerate(self.genes)}
        axes = [c for c in _AXES if c in self._note.columns]
        columns = ["cell_id", "gene", *axes]
        last = ""
        for _, part in read_groups(self.path, self._note, range(len(self._note.rows)), columns):
            cell, gene = (part[c].combine_chunks() for c in ("cell_id", "gene"))
            try:
                gene_of = np.array([number[g] for g in gene.dictionary.to_pylist()])
            except KeyError as err:
                raise unreadable(self.path, ValueError("genes that were not written")) from err
            code = cell.indices.to_numpy()
            first = np.flatnonzero(np.diff(code, prepend=-1))
            ids = cell.dictionary.take(pa.array(code[first])).to_pylist()
            if any(a >= b for a, b in zip([last, *ids], ids, strict=False)):
                raise unreadable(self.path, ValueError("cells that are not in order"))
            last = ids[-1]
            yield CellMolecules(
                np.array(ids, dtype=object),
                self.genes,
                np.append(first, len(code)),
                gene_of[gene.indices.to_numpy()].astype(np.int32),
                np.stack([part[c].to_numpy() for c in axes], axis=1).astype(np.float64),
                pd.DataFrame(),
            )

    def __repr__(self) -> str:
        return (
            f"SortedMolecules({self.path.name!r}: {self.num_molecules:,} molecules of "
            f"{len(self.genes)} genes in {self.num_cells:,} cells)"
        )


class _Steps:
    """The filters that look at one molecule at a time."""

    def __init__(
        self,
        table: MoleculeTable,
        min_qv: float,
        prefixes: Sequence[str],
        outlines: CellOutlines | None,
    ):
        self._table, self._min_qv, self._prefixes = table, min_qv, tuple(prefixes)
        self._outlines = outlines
        self._control = np.empty(0, dtype=bool)
        self.names = [
            "quality",
            "control",
            "unassigned",
            *([] if outlines is None else ["outline"]),
        ]

    def masks(self, batch: MoleculeBatch) -> list[NDArray[np.bool_]]:
        """Rows that are left after each step."""
        genes = self._table.genes
        fresh = is_control(genes[len(self._control) :], self._prefixes)
        self._control = np.concatenate([self._control, fresh])
        values = batch.values
        kept = np.ones(len(batch.gene), dtype=bool)
        masks = [values["qv"] >= self._min_qv if "qv" in values else kept]
        control = self._control[batch.gene]
        masks.append(
            masks[-1] & ~(control | ~values["is_gene"] if "is_gene" in values else control)
        )
        masks.append(masks[-1] & (batch.cell >= 0))
        if self._outlines is not None:
            near = self._outlines.keep(
                self._table.cells, batch.cell, values["x_um"], values["y_um"]
            )
            masks.append(masks[-1] & near)
        return masks


class _Counted:
    """Rows, and molecules of each cell, before all steps and after each."""

    def __init__(self, num_steps: int):
        self.rows = np.zeros(num_steps + 1, dtype=np.int64)
        self.of_cells = np.zeros((num_steps + 1, 0), dtype=np.int64)


def _count(table: MoleculeTable, steps: _Steps) -> _Counted:
    counted = _Counted(len(steps.names))
    for batch in table.batches():
        masks = [np.ones(len(batch.gene), dtype=bool), *steps.masks(batch)]
        counted.rows += [int(mask.sum()) for mask in masks]
        more = len(table.cells) - counted.of_cells.shape[1]
        counted.of_cells = np.pad(counted.of_cells, ((0, 0), (0, more)))
        for number, mask in enumerate(masks):
            own = batch.cell[mask & (batch.cell >= 0)]
            counted.of_cells[number] += np.bincount(own, minlength=len(table.cells))
    return counted


class _Merged:
    """What was written: rows, cells, and the longest side of each cell."""

    def __init__(self) -> None:
        self.rows = self.cells = 0
        self.extents: list[NDArray[np.float64]] = []


def _merge(
    table: MoleculeTable, buckets: Buckets, cells: np.ndarray, min_genes: int, out: Path
) -> _Merged:
    """Sort each bucket, and write the cells with enough genes as a row group."""
    names = np.array(table.genes, dtype=object)
    order = np.argsort(names, kind="stable")
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    genes, cell_ids = pa.array(names[order], pa.string()), pa.array(cells, pa.string())
    used, merged = np.zeros(len(names), dtype=bool), _Merged()
    writer = NotedWriter(out, "cells")
    try:
        for _, rows in buckets.drain():
            cell, start = np.unique(rows.pop("cell"), return_inverse=True)  # numbers from 0
            gene = rank[rows.pop("gene")]
            pairs = np.sort(start * len(names) + gene)  # np.unique hashes, which takes longer
            pairs = pairs[np.diff(pairs, prepend=-1) > 0]
            enough = np.bincount(pairs // len(names), minlength=len(cell)) >= min_genes
            kept = np.flatnonzero(enough[start])
            if not len(kept):
                continue
            axes = [rows[c][kept] for c in _AXES if c in rows]
            kept = kept[np.lexsort((gene[kept], *axes[::-1], start[kept]))]
            columns: dict[str, NDArray | pa.Array] = {
                "cell_id": cell_ids.take(pa.array(cell[start[kept]])),
                "gene": genes.take(pa.array(gene[kept])),
            }
            columns |= {c: rows[c][kept] for c in (*_AXES, "qv") if c in rows}
            writer.write(columns)
            used[gene[kept]] = True
            merged.rows += len(kept)
            merged.cells += int(enough.sum())
            first = np.flatnonzero(np.diff(start[kept], prepend=-1))
            sides = [np.maximum.reduceat(rows[c][kept], first)
                     - np.minimum.reduceat(rows[c][kept], first) for c in _AXES[:2]]  # fmt: skip
            merged.extents.append(np.maximum(*sides))
        writer.close(names[order][used].tolist(), merged.cells)
    finally:
        writer.abandon()
    return merged
