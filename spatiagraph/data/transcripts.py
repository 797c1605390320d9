"""Tables of single molecules: quality filters, and the count matrix they add up to.

One row per detected molecule, with columns ``x_um``, ``y_um``, ``gene`` and, where known,
``cell_id`` and ``qv`` (Phred-like quality).
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix, csr_matrix

if TYPE_CHECKING:
    from spatiagraph.data.molecules.outlines import CellOutlines

CONTROL_PREFIXES = (
    "neg",
    "blank",
    "unassigned",
    "deprecated",
    "intergenic",
    "antisense_",
    "genomiccontrol",
    "systemcontrol",
    "falsecode",
    "notarget",
)
"""Beginnings of control features of Xenium, MERSCOPE, CosMx and MERFISH, in lower case."""
_GENES_LIKE_CONTROLS = ("negr1",)  # neuronal growth regulator 1 is no negative control
UNASSIGNED = ("UNASSIGNED", "-1", "")
"""Cell ids that mean "in no cell", as text; a missing id means the same."""


class FilteredTranscripts(NamedTuple):
    """Molecules that passed, and what every step removed.

    ``removed`` has one row per step, in order, with the columns ``molecules`` and ``cells``.
    """

    transcripts: pd.DataFrame
    removed: pd.DataFrame


class CountTable(NamedTuple):
    """Counts ``[N, G]`` CSR float32, names of cells and genes, mean positions in µm ``[N, 2]``."""

    counts: csr_matrix
    cell_ids: list[str]
    genes: list[str]
    centroids: np.ndarray


def filter_transcripts(
    transcripts: pd.DataFrame,
    *,
    min_qv: float = 20.0,
    min_counts: int = 30,
    min_genes: int = 10,
    require_cell: bool = True,
    control_prefixes: Sequence[str] = CONTROL_PREFIXES,
    unassigned: Sequence[str] = UNASSIGNED,
    outlines: "CellOutlines | None" = None,
) -> FilteredTranscripts:
    """Remove doubtful molecules, control features, and cells with too little to say.

    The steps, in order: quality below ``min_qv``; control features; molecules in no cell; with
    ``outlines``, molecules outside of the outline of their cell, or too near it; cells with fewer
    than ``min_counts`` molecules; cells with fewer than ``min_genes`` genes. Filtering twice
    changes nothing more. Thresholds as in `"SpatialFormer"
    <https://www.biorxiv.org/content/10.1101/2025.01.18.633701>`_.

    Args:
        transcripts: One row per molecule; needs ``gene`` and ``cell_id``, uses ``qv`` and
            ``is_gene`` if there.
        min_qv: Least quality.
        min_counts: Least number of molecules of a cell, counted after the steps before.
        min_genes: Least number of different genes of a cell.
        require_cell: Whether to remove molecules in no cell.
        control_prefixes: How names of control features begin, in any case.
        unassigned: Cell ids that mean "in no cell".
        outlines: Outlines of the cells, against molecules that spill over from neighbours; then
            ``x_um`` and ``y_um`` are needed too.

    Raises:
        ValueError: If a column is missing, ``is_gene`` has values beside true and false, or
            outlines are of other cells.

    Examples:
        >>> table = pd.DataFrame({"gene": ["A", "Blank-1", "A"], "cell_id": ["c", "c", "-1"]})
        >>> kept, removed = filter_transcripts(table, min_counts=1, min_genes=1)
        >>> len(kept), removed["molecules"].tolist()
        (1, [0, 1, 1, 0, 0])
    """
    _require(transcripts, ["gene", "cell_id"])
    gene, gene_names = pd.factorize(transcripts["gene"])
    cell, cell_names = _cells(transcripts["cell_id"], unassigned)
    num_cells = len(cell_names)
    removed: dict[str, tuple[int, int]] = {}
    keep = np.ones(len(transcripts), dtype=bool)
    if "qv" in transcripts:
        good = transcripts["qv"].to_numpy() >= min_qv  # a missing quality is a low one
    else:
        good = keep
    keep = _keep(keep, good, cell, removed, "quality")
    control = is_control(gene_names, control_prefixes)
    good = ~np.append(control, True)[gene]  # a missing name is -1, the last entry
    if "is_gene" in transcripts:
        good &= as_flags(transcripts["is_gene"]).to_numpy()
    keep = _keep(keep, good, cell, removed, "control")
    keep = _keep(keep, (cell >= 0) | (not require_cell), cell, removed, "unassigned")
    if outlines is not None:
        _require(transcripts, ["x_um", "y_um"])
        outlines.check_any(cell_names)
        x, y = (transcripts[c].to_numpy(np.float64) for c in ("x_um", "y_um"))
        good = outlines.keep(cell_names, cell, x, y) | (cell < 0)
        keep = _keep(keep, good, cell, removed, "outline")

    counts = np.bincount(cell[keep & (cell >= 0)], minlength=num_cells)
    good = np.append(counts >= min_counts, True)[cell]  # -1: in no cell, so not concerned
    keep = _keep(keep, good, cell, removed, "min_counts")
    num_genes = max(len(gene_names), 1)
    pairs = np.unique((cell * num_genes + gene)[keep & (cell >= 0)])
    distinct = np.bincount(pairs // num_genes, minlength=num_cells)
    good = np.append(distinct >= min_genes, True)[cell]
    keep = _keep(keep, good, cell, removed, "min_genes")
    report = pd.DataFrame(list(removed.values()), list(removed), ["molecules", "cells"])
    return FilteredTranscripts(transcripts[keep], report)


def as_flags(values: pd.Series, of: str = "") -> pd.Series:
    """Column of true and false as bool, whatever its dtype.

    Args:
        values: The column.
        of: Of what, for the message.

    Raises:
        ValueError: A value is missing, or neither true, false, 0 nor 1.
    """
    wrong = np.flatnonzero(~values.isin([False, True]))  # 0 and 1 are equal to them
    if len(wrong):
        raise ValueError(
            f"Expected true or false in column {values.name!r}{of}, got {values.iloc[wrong[0]]} "
            f"in row {values.index[wrong[0]]}. Write the table again"
        )
    return values.astype(bool)


def counts_from_transcripts(
    transcripts: pd.DataFrame, *, unassigned: Sequence[str] = UNASSIGNED
) -> CountTable:
    """Add molecules up to counts per cell and gene.

    Args:
        transcripts: One row per molecule; needs ``x_um``, ``y_um``, ``gene`` and ``cell_id``.
            Molecules in no cell are left out.
        unassigned: Cell ids that mean "in no cell".

    Returns:
        Cells in order of their first molecule and genes in alphabetical order, only those that
        occur; and the mean position of each cell's molecules.

    Raises:
        ValueError: If a column is missing, or a molecule in a cell has no gene or position.
    """
    _require(transcripts, ["x_um", "y_um", "gene", "cell_id"])
    cell, _ = _cells(transcripts["cell_id"], unassigned)
    inside = transcripts[cell >= 0]
    pos = inside[["x_um", "y_um"]].to_numpy(np.float64)
    wrong = np.flatnonzero(~np.isfinite(pos).all(1) | inside["gene"].isna().to_numpy())
    if len(wrong):
        raise ValueError(
            "Expected a gene and a finite position for each molecule in a cell, got none in "
            f"{len(wrong)} rows, such as {inside.index[wrong[:5]].tolist()}; drop them"
        )
    cell, cell_ids = pd.factorize(inside["cell_id"])
    gene, genes = pd.factorize(inside["gene"].astype(str), sort=True)
    shape = (len(cell_ids), len(genes))
    counts = coo_matrix((np.ones(len(cell), np.float32), (cell, gene)), shape=shape).tocsr()
    totals = np.bincount(cell, minlength=shape[0])
    sums = [np.bincount(cell, weights=pos[:, axis], minlength=shape[0]) for axis in (0, 1)]
    centroids = np.stack(sums, axis=1) / totals[:, None]
    return CountTable(counts, [str(c) for c in cell_ids], [str(g) for g in genes], centroids)


def is_control(
    names: Iterable[str | bytes], prefixes: Sequence[str] = CONTROL_PREFIXES
) -> np.ndarray:
    """Mask of names that are of control features and not of genes.

    Args:
        names: Names of features; old parquet files hold bytes.
        prefixes: How names of control features begin, in any case.

    Returns:
        Bool, one per name.

    Examples:
        >>> is_control(["Actb", "Blank-1", "NegPrb3", "NEGR1"]).tolist()
        [False, True, True, False]
    """
    low = [(n.decode() if isinstance(n, bytes) else str(n)).lower() for n in names]
    start = tuple(p.lower() for p in prefixes)
    return np.array(
        [n.startswith(start) and not n.startswith(_GENES_LIKE_CONTROLS) for n in low], dtype=bool
    )


def _require(transcripts: pd.DataFrame, columns: list[str]) -> None:
    missing = [c for c in columns if c not in transcripts]
    if missing:
        raise ValueError(
            f"Expected transcripts with columns {columns}, got none named {missing} among "
            f"{list(transcripts.columns)}; rename them"
        )


def _cells(cell_id: pd.Series, unassigned: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Integer of each molecule's cell, -1 for none, and the names that the integers stand for."""
    code, distinct = pd.factorize(cell_id)  # names are few: compare those
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in distinct]
    nowhere = np.array([name in set(unassigned) for name in names], dtype=bool)
    return np.where(np.append(nowhere, True)[code], -1, code), names


def _keep(
    keep: np.ndarray,
    good: np.ndarray,
    cell: np.ndarray,
    removed: dict[str, tuple[int, int]],
    step: str,
) -> np.ndarray:
    """Rows left after a step, which is noted in ``removed``."""
    after = keep & good
    cells = [np.count_nonzero(np.bincount(cell[k & (cell >= 0)])) for k in (keep, after)]
    removed[step] = (int(keep.sum() - after.sum()), int(cells[0] - cells[1]))
    return after
