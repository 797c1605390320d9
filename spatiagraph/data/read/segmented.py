"""Cells that Space Ranger 4 segmented on Visium HD: counts per cell, outlines as GeoJSON."""

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from spatiagraph import keys
from spatiagraph.data.read.corners import geojson_corners
from spatiagraph.data.read.molecules import polygon_centroids
from spatiagraph.data.read.tables import listed
from spatiagraph.data.read.tenx import find_matrix, read_matrix

CELL_MATRICES = ("filtered_feature_cell_matrix", "raw_feature_cell_matrix")
"""Names of the matrices of cells, as :func:`~spatiagraph.data.read.tenx.find_matrix` wants them."""

_OUTLINES = "*cell_segmentations.geojson"


def find_cells(folder: Path) -> Path | None:
    """The matrix of segmented cells of a folder that has outlines beside it."""
    return find_matrix(folder, CELL_MATRICES) if listed(folder, _OUTLINES) else None


def read_segmented(folder: Path, matrix: Path) -> tuple[AnnData, str, list[str]]:
    """Read cells with the centroids of their outlines.

    Args:
        folder: Where the outlines are.
        matrix: The counts.

    Returns:
        Cells with ``obsm["spatial"]`` in full-resolution pixels; the name of the file of outlines;
        a line about cells that were dropped, if any.

    Raises:
        ValueError: There are no outlines, they are damaged, or are those of other cells.
    """
    found = listed(folder, _OUTLINES)
    if not found:
        raise ValueError(
            f"Expected cell_segmentations.geojson beside {matrix.name}, found none: without "
            "outlines its cells have no place. Copy it from segmented_outputs, or pass a folder of "
            "binned_outputs"
        )
    path = min(found, key=lambda p: len(p.name))  # annotated copies have longer names
    corners = geojson_corners(path).rename(columns={"x_um": "vertex_x", "y_um": "vertex_y"})
    adata, _ = read_matrix(matrix)
    cell = np.array([_number(name) for name in adata.obs_names])
    centre = polygon_centroids(corners).rename(index=int)
    rows = centre.index.get_indexer(pd.Index(cell))
    if (rows < 0).all():
        raise ValueError(
            f"Expected outlines of the cells of {matrix.name} in {path.name}, got none: cells are "
            f"called {', '.join(adata.obs_names[:3])}, …, outlines "
            f"{', '.join(map(str, centre.index[:3]))}, …"
        )
    lost = []
    if (rows < 0).any():
        lost = [
            f"Dropped {int((rows < 0).sum())} of {len(rows)} cells of {matrix.name} that have no "
            f"outline in {path.name}: {', '.join(map(repr, adata.obs_names[rows < 0][:5]))}"
        ]
        adata, rows = adata[rows >= 0].copy(), rows[rows >= 0]
    adata.obsm[keys.SPATIAL] = centre.to_numpy(np.float64)[rows]
    return adata, path.name, lost


def _number(barcode: str) -> int:
    """``cellid_000000007-1`` is cell 7."""
    digits = barcode.rpartition("_")[2].partition("-")[0]
    return int(digits) if digits.isdecimal() else -1
