"""Molecules by cell: one sorted table with a pointer to the first molecule of each cell."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph.data.transcripts import UNASSIGNED, filter_transcripts

if TYPE_CHECKING:
    from spatiagraph.data.molecules.outlines import CellOutlines
    from spatiagraph.data.slide import Slide


_JUDGED = 5  # cells that tell a unit: one may be a large one


class CellMolecules(NamedTuple):
    """Molecules of cells, in an order that does not depend on that of the table.

    Attributes:
        cell_ids: Name of each cell, ``[N]``, in alphabetical order.
        genes: Names of genes, ``[G]``, in alphabetical order.
        ptr: First molecule of each cell and the end, ``[N + 1]``.
        gene: Gene of each molecule, ``[M]`` int32.
        pos: Position of each molecule in µm, ``[M, 2]``, or ``[M, 3]`` where z is known; sorted
            within a cell by x, y, z and gene.
        removed: Molecules and cells that each step of filtering removed.
    """

    cell_ids: np.ndarray
    genes: np.ndarray
    ptr: NDArray[np.int64]
    gene: NDArray[np.int32]
    pos: NDArray[np.float64]
    removed: pd.DataFrame

    @property
    def num_cells(self) -> int:
        """Number of cells, :math:`N`."""
        return len(self.cell_ids)

    @property
    def num_molecules(self) -> int:
        """Number of molecules, :math:`M`."""
        return len(self.gene)

    def parts(self) -> Iterator["CellMolecules"]:
        """All cells, in one part."""
        yield self


class MoleculesByCell(Protocol):
    """Molecules of cells of which some whole cells at a time are in memory, or all.

    :class:`CellMolecules` and
    :class:`~spatiagraph.data.colocalization.SortedMolecules` are such.
    """

    @property
    def genes(self) -> np.ndarray:
        """Names of genes, ``[G]``, in alphabetical order."""
        ...

    @property
    def num_cells(self) -> int:
        """Number of cells."""
        ...

    @property
    def num_molecules(self) -> int:
        """Number of molecules."""
        ...

    def parts(self) -> Iterator[CellMolecules]:
        """Some whole cells at a time; genes have the same number in all parts."""
        ...


def cell_molecules(
    transcripts: pd.DataFrame,
    *,
    min_qv: float = 20.0,
    min_counts: int = 30,
    min_genes: int = 10,
    genes: Sequence[str] | None = None,
    outlines: "CellOutlines | None" = None,
    max_extent_um: float = 80.0,
) -> CellMolecules:
    """Filter molecules and sort them by cell.

    Thresholds and order of the steps as in
    :func:`~spatiagraph.data.transcripts.filter_transcripts`.

    Args:
        transcripts: One row per molecule: ``x_um``, ``y_um``, ``gene``, ``cell_id`` and, where
            known, ``z_um`` and ``qv``.
        min_qv: Least quality.
        min_counts: Least number of molecules of a cell.
        min_genes: Least number of different genes of a cell.
        genes: Names that genes are numbered by; those that occur, when not given.
        outlines: Outlines of the cells: molecules outside of them or too near are left out.
        max_extent_um: Longest side of half of the cells, at most: beyond it, positions are no µm,
            or cells of two slides have the same names.

    Raises:
        ValueError: If a column is missing, a position is not finite or not in µm, a gene is none of
            ``genes``, outlines are of other cells, or no cell is left.
    """
    missing = [c for c in ("x_um", "y_um", "gene", "cell_id") if c not in transcripts]
    if missing:
        raise ValueError(
            f"Expected molecules with x_um, y_um, gene and cell_id, got none named "
            f"{', '.join(missing)} among {', '.join(map(str, transcripts.columns))}"
        )
    kept, removed = filter_transcripts(
        transcripts, min_qv=min_qv, min_counts=min_counts, min_genes=min_genes, outlines=outlines
    )
    if kept.empty:
        steps = ", ".join(f"{step} {n:,}" for step, n in removed["molecules"].items() if n)
        raise ValueError(
            f"Expected cells with at least {min_counts} molecules of {min_genes} genes, got none "
            f"among {len(transcripts):,} molecules (removed: {steps or 'none'}). Lower min_counts "
            "and min_genes, or min_qv"
        )
    axes = ["x_um", "y_um", *(["z_um"] if "z_um" in kept else [])]
    pos = kept[axes].to_numpy(np.float64)
    wrong = np.flatnonzero(~np.isfinite(pos).all(1))
    if len(wrong):
        raise ValueError(
            f"Expected finite positions of molecules, got others in {len(wrong)} rows, such as "
            f"{kept.index[wrong[:5]].tolist()}: drop them"
        )
    cell, cell_ids = _numbered(kept["cell_id"])
    gene, names = _numbered(kept["gene"])
    if genes is not None:
        place = pd.Index(genes).get_indexer(pd.Index(names))
        if (place < 0).any():
            unknown = ", ".join(map(str, names[place < 0][:5]))
            raise ValueError(
                f"Expected molecules of the {len(genes)} given genes, got others such as {unknown}"
            )
        gene, names = place[gene], np.asarray(genes, dtype=object)
    order = np.lexsort((gene, *pos.T[::-1], cell))
    ptr = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=len(cell_ids)))])
    sides = [np.maximum.reduceat(v[order], ptr[:-1]) - np.minimum.reduceat(v[order], ptr[:-1])
             for v in pos.T[:2]]  # fmt: skip
    check_extent(np.maximum(*sides), max_extent_um, "the molecules")
    return CellMolecules(cell_ids, names, ptr, gene[order].astype(np.int32), pos[order], removed)


def check_extent(extent: NDArray[np.floating], most: float, name: str) -> None:
    """Refuse cells that are too large for µm; five cells or more are judged.

    Args:
        extent: Longest side of each cell.
        most: Of half of them, in µm.
        name: Where the molecules are from, for the message.

    Raises:
        ValueError: Half of the cells are larger.
    """
    found = float(np.median(extent))
    if len(extent) >= _JUDGED and found > most:
        raise ValueError(
            f"Expected positions in µm in {name}, got cells whose molecules lie {found:.4g} apart "
            f"(median), more than max_extent_um={most:g}. Are they pixels? Or do cells of several "
            "slides have the same names? If cells are that large, raise max_extent_um"
        )


def _numbered(values: pd.Series) -> tuple[NDArray[np.int64], np.ndarray]:
    """Number of each value in alphabetical order of their texts, and the texts."""
    code, found = pd.factorize(values)
    text = np.array([v.decode() if isinstance(v, bytes) else str(v) for v in found], dtype=object)
    names, number = np.unique(text, return_inverse=True)
    return number[code].astype(np.int64), names


def check_cells(cell_ids: pd.Series, slide: "Slide") -> None:
    """Refuse molecules of which none is in a cell of the slide.

    Args:
        cell_ids: Cell of each molecule, missing where it is in none.
        slide: The slide.

    Raises:
        ValueError: If no cell has the name of one of the slide.
    """
    _, names = _numbered(cell_ids.dropna())
    names = names[~np.isin(names, UNASSIGNED)]
    if len(names) and not slide.adata.obs_names.isin(names).any():
        raise ValueError(
            f"Expected molecules in cells of slide {slide.slide_id!r}, got none: they are in "
            f"{[*map(str, names[:2])]}, its cells are {[*slide.adata.obs_names[:2]]}. Are they of "
            "the same tissue, and named alike?"
        )
