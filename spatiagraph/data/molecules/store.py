"""``Molecules``: the molecules of a section on disk, read window by window."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from spatiagraph._files import replaced_file
from spatiagraph.data.molecules.buckets import Buckets, bucket_of
from spatiagraph.data.molecules.notes import NotedWriter, RowsOf, read_groups, read_note
from spatiagraph.data.molecules.table import BATCH, MoleculeTable
from spatiagraph.data.molecules.tiling import Tiling, bin_codes, cut
from spatiagraph.data.read.tables import unreadable

_AT_ONCE = 1 << 20  # rows that are sorted at a time


class Molecules:
    """Molecules of a section in one parquet file, a row group for each tile of the tissue.

    A window is read from the tiles it touches, so it costs what it holds and not what the section
    holds. All molecules are kept: those of poor quality, of controls and outside of cells too. Any
    reader of parquet opens the file.

    Args:
        path: File of :meth:`create`.

    Attributes:
        path: The file.
        genes: Names of genes, ``[G]``, in alphabetical order.
        num_cells: Cells that have molecules.
        bounds_um: Least and greatest x, least and greatest y of each tile, ``[T, 4]``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or none of :meth:`create`.

    Examples:
        >>> folder = Path(getfixture("tmp_path"))
        >>> table = pd.DataFrame({"x": [1.0, 2.0, 30.0], "y": 5.0, "gene": ["A", "B", "A"]})
        >>> table.to_parquet(folder / "transcripts.parquet")
        >>> molecules = Molecules.create(folder / "tiles.parquet", folder / "transcripts.parquet")
        >>> molecules
        Molecules('tiles.parquet': 3 molecules of 2 genes in 1 tiles)
        >>> molecules.window(0, 0, 10, 10)["gene"].tolist()
        ['A', 'B']
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._note = note = read_note(self.path, "tiles", "Molecules.create")
        self.genes = np.array(note.genes, dtype=object)
        self.num_cells = note.num_cells
        self.bounds_um = np.array(note.bounds_um, dtype=np.float64).reshape(-1, 4)
        if len(self.bounds_um) != len(note.rows):
            raise unreadable(self.path, ValueError("tiles without their bounds"))

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        source: str | os.PathLike[str],
        *,
        mpp: float | None = None,
        tile_size: int = 1 << 15,
        bucket_size: int = _AT_ONCE,
        batch_size: int = BATCH,
    ) -> "Molecules":
        """Write the molecules of a machine, tile by tile, in bounded memory.

        The file is written beside and renamed, so an interrupted call leaves none, or the old one.

        Args:
            path: The parquet file to write.
            source: Table, SpatialData store or folder, see
                :class:`~spatiagraph.data.molecules.MoleculeTable`.
            mpp: µm per unit of its coordinates, where they are not µm.
            tile_size: Molecules of a tile, at most.
            bucket_size: Molecules that are sorted at a time: bounds memory, not the result.
            batch_size: Molecules that are read at a time, likewise.

        Raises:
            FileNotFoundError: There is no such source.
            ValueError: The source is damaged or no table of molecules, or ``tile_size`` is below 1.
            DiskFullError: There is no space for it.
        """
        if tile_size < 1:
            raise ValueError(f"Expected 'tile_size' of 1 or more, got {tile_size}")
        place, table = Path(path), MoleculeTable(Path(source), mpp, batch_size=batch_size)
        tiling = _tiling(table, tile_size)
        bucket = bucket_of(tiling.sizes, bucket_size)
        with (
            replaced_file(place) as new,
            TemporaryDirectory(dir=new.parent, prefix=".sorting") as folder,
            Buckets(Path(folder)) as buckets,
        ):
            for batch in table.batches():
                tile = tiling.of(bin_codes(batch.values["x_um"], batch.values["y_um"]))
                columns = {**batch.values, "gene": batch.gene, "cell": batch.cell, "tile": tile}
                buckets.add(columns, bucket[tile])
            _write(table, buckets, new)
        return cls(place)

    @property
    def num_molecules(self) -> int:
        """Number of molecules."""
        return sum(self._note.rows)

    @property
    def num_tiles(self) -> int:
        """Number of tiles, :math:`T`."""
        return len(self._note.rows)

    def window(
        self,
        x0_um: float,
        y0_um: float,
        x1_um: float,
        y1_um: float,
        columns: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Molecules of a rectangle.

        Left and top edges belong to it, right and bottom edges do not, so that windows side by side
        share no molecule and lose none.

        Args:
            x0_um: Left edge.
            y0_um: Top edge.
            x1_um: Right edge.
            y1_um: Bottom edge.
            columns: Columns beside ``x_um`` and ``y_um``; all by default.

        Returns:
            One row per molecule, in the order of the file, with the columns of
            :func:`~spatiagraph.data.read.molecules.read_molecules`.

        Raises:
            ValueError: The edges are not in order, a column is not there, or the file is damaged.
        """
        if not (x0_um < x1_um and y0_um < y1_um):
            raise ValueError(
                f"Expected a window with x0_um below x1_um and y0_um below y1_um, got "
                f"{x0_um:g}, {y0_um:g} to {x1_um:g}, {y1_um:g}"
            )
        x_min, x_max, y_min, y_max = self.bounds_um.T
        touched = (x_max >= x0_um) & (x_min < x1_um) & (y_max >= y0_um) & (y_min < y1_um)

        def inside(tile: int, x: NDArray, y: NDArray) -> NDArray[np.bool_]:
            return np.asarray((x >= x0_um) & (x < x1_um) & (y >= y0_um) & (y < y1_um))

        parts = [part for _, part in self._read(np.flatnonzero(touched), columns, inside)]
        return _frame(parts) if parts else self._empty(columns)

    def tiles(self, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """Molecules tile by tile.

        Args:
            columns: Columns beside ``x_um`` and ``y_um``; all by default.

        Raises:
            ValueError: A column is not there, or the file is damaged.
        """
        for _, part in self._read(np.arange(self.num_tiles), columns):
            yield _frame([part])

    def _read(
        self,
        tiles: NDArray[np.integer],
        columns: Sequence[str] | None,
        rows: RowsOf | None = None,
    ) -> Iterator[tuple[int, pa.Table]]:
        have = self._note.columns
        wanted = have if columns is None else list(dict.fromkeys(["x_um", "y_um", *columns]))
        if missing := [c for c in wanted if c not in have]:
            raise ValueError(
                f"Expected columns among {', '.join(have)} of {self.path.name}, got "
                f"{', '.join(missing)}"
            )
        return read_groups(self.path, self._note, tiles.tolist(), wanted, rows)

    def _empty(self, columns: Sequence[str] | None) -> pd.DataFrame:
        _, part = next(self._read(np.arange(1), columns))
        return _frame([part.slice(0, 0)])

    def __repr__(self) -> str:
        return (
            f"Molecules({self.path.name!r}: {self.num_molecules:,} molecules of {len(self.genes)} "
            f"genes in {self.num_tiles:,} tiles)"
        )


def _tiling(table: MoleculeTable, tile_size: int) -> Tiling:
    """Tiles of a table, from a pass that counts."""
    bins, count = np.empty(0, np.int64), np.empty(0, np.int64)
    for batch in table.batches():
        found, more = np.unique(
            bin_codes(batch.values["x_um"], batch.values["y_um"]), return_counts=True
        )
        bins, place = np.unique(np.concatenate([bins, found]), return_inverse=True)
        count = np.bincount(place, np.concatenate([count, more]), len(bins)).astype(np.int64)
    return cut(bins, count, tile_size)


def _write(table: MoleculeTable, buckets: Buckets, path: Path) -> None:
    """Write each tile of each bucket as a row group, sorted by place."""
    genes, cells = (np.array(names, dtype=object) for names in (table.genes, table.cells))
    rank = np.empty(len(genes), dtype=np.int64)
    rank[np.argsort(genes)] = np.arange(len(genes))
    gene_names, cell_names = pa.array(genes[np.argsort(genes)], pa.string()), pa.array(
        [*cells, None], pa.string()
    )  # fmt: skip
    writer = NotedWriter(path, "tiles")
    seen = np.zeros(len(cells) + 1, dtype=bool)
    try:
        for _, rows in buckets.drain():
            gene = rank[rows["gene"]]
            order = np.lexsort((rows["cell"], gene, rows["y_um"], rows["x_um"], rows["tile"]))
            tile = rows.pop("tile")[order]
            for here in np.split(order, np.flatnonzero(np.diff(tile)) + 1):
                x, y = rows["x_um"][here], rows["y_um"][here]
                columns: dict[str, NDArray | pa.Array] = {"x_um": x, "y_um": y}
                columns["gene"] = gene_names.take(pa.array(gene[here]))
                if table.has_cells:
                    columns["cell_id"] = cell_names.take(pa.array(rows["cell"][here] % len(seen)))
                    seen[rows["cell"][here]] = True
                columns |= {
                    k: v[here] for k, v in rows.items() if k not in ("gene", "cell", *columns)
                }
                writer.write(columns, (x.min(), x.max(), y.min(), y.max()))
        writer.close(gene_names.to_pylist(), int(seen[:-1].sum()))
    finally:
        writer.abandon()


def _frame(parts: Sequence[pa.Table]) -> pd.DataFrame:
    """Parts of one window, with genes as categories and cells as text."""
    table = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    frame = table.replace_schema_metadata().to_pandas()
    if "cell_id" in frame:
        frame["cell_id"] = frame["cell_id"].astype(object)
    return frame
