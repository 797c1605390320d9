"""Molecule tables of vendors → molecules in µm, and the counts that follow from them."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import coo_matrix

from spatiagraph import keys
from spatiagraph._reasons import reason
from spatiagraph.data.read.controls import CONTROL_COUNTS
from spatiagraph.data.read.tables import check_numbers, numbers, read_table, table_columns
from spatiagraph.data.transcripts import UNASSIGNED, as_flags, is_control

MIN_QV = 20
"""Phred-scaled quality from which 10x counts a molecule."""
XENIUM = {
    "x_location": "x_um",
    "y_location": "y_um",
    "z_location": "z_um",
    "feature_name": "gene",
    "cell_id": "cell_id",
    "qv": "qv",
    "overlaps_nucleus": "overlaps_nucleus",
    "is_gene": "is_gene",
}
"""Columns of a Xenium table → ours."""
MERSCOPE = {
    "global_x": "x_um",
    "global_y": "y_um",
    "global_z": "z_plane",  # number of the plane, not µm
    "gene": "gene",
    "cell_id": "cell_id",
}
"""Columns of a MERSCOPE table → ours."""
COSMX = {
    "x_global_px": "x_um",  # pixels until they are scaled
    "y_global_px": "y_um",
    "z": "z_plane",
    "target": "gene",
    "fov": "fov",
    "cell_ID": "cell_id",
}
"""Columns of a CosMx table → ours."""
PLAIN = {
    "x": "x_um",
    "y": "y_um",
    "z": "z_um",
    "x_um": "x_um",
    "y_um": "y_um",
    "z_um": "z_um",
    "gene": "gene",
    "cell_id": "cell_id",
    "qv": "qv",
    "is_gene": "is_gene",
    "is_control": "is_control",
}
"""Columns of a table that wears the names of no maker, in µm → ours."""
BACKGROUND = frozenset({"0"})
"""Ids of no cell where cells are numbered from 1: Baysor, label images, CosMx."""
_OF_BAYSOR = frozenset({"is_noise", "assignment_confidence"})
_NEEDED = ("x_um", "y_um", "gene")
_NUMBERS = ("x_um", "y_um", "qv", "z_plane")
_FLAGS = ("is_gene", "is_control", "overlaps_nucleus")


def read_molecules(path: Path, columns: Mapping[str, str] = XENIUM) -> pd.DataFrame:
    """Read a table of molecules (parquet, csv or csv.gz).

    Args:
        path: The file.
        columns: Its columns → ours; those that are not listed are not read.

    Returns:
        One row per molecule: ``x_um``, ``y_um``, ``gene`` (categorical) and, where the file has
        them, the others of ``columns``; ``cell_id`` is a string, missing outside of cells.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, or coordinates or gene names are missing or no such.
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected transcripts at {path}, found no such file")
    needed = [theirs for theirs, ours in columns.items() if ours in _NEEDED]
    names = [theirs for theirs, ours in columns.items() if ours == "gene"]
    table = read_table(path, list(columns), needed=needed, text=names)
    if table.empty:
        raise ValueError(f"Expected molecules in {path.name}, got none. Is the file complete?")
    for column in map(str, table):
        if columns[column] in _NUMBERS:
            check_numbers(table, [column], path.name)
            if not pd.api.types.is_numeric_dtype(table[column]):  # numbers as text
                table[column] = numbers(table, [column], path.name)[:, 0]
        elif columns[column] in _FLAGS:
            table[column] = as_flags(table[column], f" of {path.name}")
    table = table.rename(columns=dict(columns)).reset_index(drop=True)
    table["gene"] = gene_names(table["gene"], path.name)
    if "cell_id" in table:
        ids = as_text(table["cell_id"])
        table["cell_id"] = ids.mask(ids.isin(UNASSIGNED))
    return table


def plain_columns(have: Collection[str]) -> dict[str, str]:
    """Columns of a table that wears the names of no maker → ours, each of ours once.

    Args:
        have: Columns of the table. Positions in µm (``x_um``, ``y_um``, ``z_um``) go before those
            without a unit, all together; ``cell_id`` goes before ``cell``, whose number 0 means
            noise (:data:`BACKGROUND`), but in a table that Baysor wrote, where ``cell`` is what it
            found and ``cell_id`` what it was given.
    """
    left_out = {"x", "y", "z"} if {"x_um", "y_um"} <= {*have} else {"x_um", "y_um", "z_um"}
    columns = {k: v for k, v in PLAIN.items() if k in have and k not in left_out}
    if "cell" in have and ("cell_id" not in have or _OF_BAYSOR.intersection(have)):
        columns.pop("cell_id", None)
        columns["cell"] = "cell_id"
    return columns


def read_any_molecules(path: Path) -> pd.DataFrame:
    """Read a table of molecules in µm, with the columns of Xenium or plain ones.

    Args:
        path: The file. Plain columns are ``x`` and ``y`` (or ``x_um`` and ``y_um``), ``gene``, and
            maybe ``cell_id`` (or the ``cell`` of Baysor), ``qv``, ``is_gene`` or ``is_control``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: See :func:`read_molecules`.
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected transcripts at {path}, found no such file")
    have = set(table_columns(path))
    columns = plain_columns(have)
    if not {*_NEEDED} <= set(columns.values()):
        return read_molecules(path)
    table = read_molecules(path, columns)
    if "cell" in columns:
        table["cell_id"] = table["cell_id"].mask(table["cell_id"].isin(BACKGROUND))
    if "is_control" in table:
        table["is_gene"] = ~table.pop("is_control").astype(bool)
    return table


def count_molecules(molecules: pd.DataFrame, *, min_qv: float = MIN_QV) -> AnnData:
    """Counts per cell and gene, as the instrument makes them: controls and poor reads left out.

    Args:
        molecules: Table with ``gene``, ``cell_id``, ``x_um``, ``y_um`` and maybe ``qv``.
        min_qv: Quality from which a molecule counts.

    Returns:
        Cells in order of their id; ``obsm["spatial"]`` is the mean of each cell's molecules.

    Raises:
        ValueError: No molecule is in a cell.
    """
    if "cell_id" not in molecules:
        raise ValueError("Expected a column cell_id: without it no molecule belongs to a cell")
    inside = molecules["cell_id"].notna()
    if "qv" in molecules:
        inside &= molecules["qv"] >= min_qv
    control = _of_controls(molecules)
    kept = molecules[inside & ~control]
    if kept.empty:
        raise ValueError(
            f"Expected molecules in cells, got none of quality {min_qv:g} among {len(molecules)}"
        )
    row, cells = pd.factorize(kept["cell_id"], sort=True)
    column, genes = pd.factorize(kept["gene"].astype(str), sort=True)
    counts = coo_matrix(
        (np.ones(len(kept), np.float32), (row, column)), shape=(len(cells), len(genes))
    ).tocsr()
    adata = AnnData(
        counts, obs=pd.DataFrame(index=cells.astype(str)), var=pd.DataFrame(index=genes.astype(str))
    )
    adata.obsm[keys.SPATIAL] = kept.groupby(row)[["x_um", "y_um"]].mean().to_numpy(dtype=np.float64)
    if control.any():
        found = molecules.loc[inside & control, "cell_id"].value_counts()
        adata.obs[CONTROL_COUNTS] = found.reindex(adata.obs_names, fill_value=0).to_numpy(
            np.float32
        )
    return adata


def num_controls(molecules: pd.DataFrame) -> int:
    """Number of control features among the molecules."""
    return int(molecules.loc[_of_controls(molecules), "gene"].nunique())


def polygon_centroids(outlines: pd.DataFrame) -> pd.DataFrame:
    """Area centroid of each cell's outline (shoelace formula).

    Args:
        outlines: One row per vertex: ``cell_id``, ``vertex_x``, ``vertex_y``, all finite.

    Returns:
        Indexed by cell id (string): ``x``, ``y``; outlines without area keep the vertex mean.
    """
    ids = as_text(outlines["cell_id"])
    x, y = (outlines[c].groupby(ids.to_numpy()) for c in ("vertex_x", "vertex_y"))
    x0 = outlines["vertex_x"] - x.transform("mean")  # from the middle, against cancellation
    y0 = outlines["vertex_y"] - y.transform("mean")
    x1, y1 = (
        v.groupby(ids.to_numpy()).shift(-1).fillna(v.groupby(ids.to_numpy()).transform("first"))
        for v in (x0, y0)
    )
    cross = x0 * y1 - x1 * y0
    terms = pd.DataFrame({"a": cross / 2, "x": (x0 + x1) * cross, "y": (y0 + y1) * cross})
    total = terms.groupby(ids.to_numpy()).sum()
    area = total["a"].where(total["a"].abs() > 1e-9)
    return pd.DataFrame(
        {
            "x": x.mean() + (total["x"] / (6 * area)).fillna(0.0),
            "y": y.mean() + (total["y"] / (6 * area)).fillna(0.0),
        }
    )


def _of_controls(molecules: pd.DataFrame) -> pd.Series:
    """Which molecules are those of control features, bool per row."""
    if "is_gene" in molecules:
        return ~as_flags(molecules["is_gene"])
    genes = molecules["gene"].astype("category")
    control = is_control(genes.cat.categories)
    return pd.Series(np.append(control, False)[genes.cat.codes], index=molecules.index)


def gene_names(values: pd.Series, name: str) -> pd.Series:
    """Genes of the molecules of the file ``name``, as categories.

    Raises:
        ValueError: A molecule has none.
    """
    missing = np.flatnonzero(values.isna())
    if len(missing):
        raise ValueError(
            f"Expected a gene for each molecule in {name}, got none in {len(missing)} rows (first: "
            f"{missing[:5].tolist()}). Drop them"
        )
    return as_text(values, f" of {name}").astype("category")


def as_text(values: pd.Series, of: str = "") -> pd.Series:
    """Values as strings, equal ones sharing one object; old parquet files hold bytes.

    Args:
        values: A column.
        of: Of what, for the message.

    Raises:
        ValueError: Numbers beside empty fields, which are read as floats, lost digits.
    """
    if pd.api.types.is_float_dtype(values):
        known = values.dropna()
        wrong = known[(known % 1 != 0) | (known.abs() >= 2**53)]
        if len(wrong):
            raise ValueError(
                f"Expected whole numbers below 2^53 in column {values.name!r} where fields are "
                f"empty, got {wrong.iloc[0]:.17g}. Fill the empty fields with -1"
            )
        values = values.astype("Int64")
    code, distinct = pd.factorize(values)
    try:
        names = [v.decode() if isinstance(v, bytes) else str(v) for v in distinct]
    except UnicodeDecodeError as err:
        raise ValueError(
            f"Expected text in column {values.name!r}{of}, got {reason(err)}. Write the table again"
        ) from err
    return pd.Series(np.array([*names, ""], dtype=object)[code], index=values.index)  # -1: missing
