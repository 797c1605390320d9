"""Xenium molecule tables → molecules in µm, and the counts that follow from them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from anndata import AnnData
from scipy.sparse import coo_matrix

from spatiagraph import keys
from spatiagraph.data.checks import nearest

MIN_QV = 20
"""Phred-scaled quality from which 10x counts a molecule."""
_COLUMNS = {
    "x_location": "x_um",
    "y_location": "y_um",
    "z_location": "z_um",
    "feature_name": "gene",
    "cell_id": "cell_id",
    "qv": "qv",
    "overlaps_nucleus": "overlaps_nucleus",
    "is_gene": "is_gene",
}
_NEEDED = ("x_location", "y_location", "feature_name")
_UNASSIGNED = ("-1", "UNASSIGNED", "")
_CONTROLS = (
    "NegControl",
    "BLANK",
    "antisense_",
    "Unassigned",
    "Deprecated",
    "Intergenic",
    "Genomic",
)


def read_molecules(path: Path) -> pd.DataFrame:
    """Read a Xenium ``transcripts`` table (parquet, csv or csv.gz).

    Args:
        path: The file.

    Returns:
        One row per molecule: ``x_um``, ``y_um``, ``gene`` (categorical) and, where the file has
        them, ``z_um``, ``cell_id`` (string, missing outside of cells), ``qv``,
        ``overlaps_nucleus``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Coordinates or gene names are missing.
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected transcripts at {path}, found no such file")
    if path.suffix == ".parquet":
        have = pq.read_schema(path).names
        table = pd.read_parquet(path, columns=[c for c in _COLUMNS if c in have])
    else:
        have = pd.read_csv(path, nrows=0).columns.tolist()
        table = pd.read_csv(path, usecols=[c for c in _COLUMNS if c in have])
    missing = [c for c in _NEEDED if c not in have]
    if missing:
        raise ValueError(
            f"Expected columns {', '.join(_NEEDED)} in {path.name}, got no {', '.join(missing)}. "
            f"{nearest(missing[0], have)}"
        )
    table = table.rename(columns=_COLUMNS).reset_index(drop=True)
    table["gene"] = _text(table["gene"]).astype("category")
    if "cell_id" in table:
        ids = _text(table["cell_id"])
        table["cell_id"] = ids.mask(ids.isin(_UNASSIGNED))
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
    keep = molecules["cell_id"].notna() & ~_is_control(molecules)
    if "qv" in molecules:
        keep &= molecules["qv"] >= min_qv
    kept = molecules[keep]
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
    return adata


def polygon_centroids(outlines: pd.DataFrame) -> pd.DataFrame:
    """Area centroid of each cell's outline (shoelace formula).

    Args:
        outlines: One row per vertex: ``cell_id``, ``vertex_x``, ``vertex_y``.

    Returns:
        Indexed by cell id (string): ``x``, ``y``; outlines without area keep the vertex mean.
    """
    ids = _text(outlines["cell_id"])
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


def _is_control(molecules: pd.DataFrame) -> pd.Series:
    if "is_gene" in molecules:
        return ~molecules["is_gene"].astype(bool)
    genes = molecules["gene"].astype("category")
    control = genes.cat.categories.astype(str).str.startswith(_CONTROLS)
    return pd.Series(control[genes.cat.codes], index=molecules.index)


def _text(values: pd.Series) -> pd.Series:
    """Values as strings, equal ones sharing one object; old parquet files hold bytes."""
    code, distinct = pd.factorize(values)
    names = [v.decode() if isinstance(v, bytes) else str(v) for v in distinct]
    return pd.Series(np.array([*names, ""], dtype=object)[code], index=values.index)  # -1: missing
