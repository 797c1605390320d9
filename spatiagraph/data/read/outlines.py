"""Outlines of cells, a polygon per plane: where cells lie, and which molecules are inside."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from spatiagraph._optional import require
from spatiagraph.data.read.tables import listed, read_table, table_columns

_PURPOSE = "Reading the outlines of cells"
_AT_ONCE = 1_000_000  # molecules that are points at the same time


def find_outlines(folder: Path) -> Path | None:
    """Outlines of a MERSCOPE folder or of Vizgen's post-processing: parquet, or a folder of HDF5.

    Args:
        folder: Where to look.
    """
    for path in listed(folder, "*.parquet"):
        if {"EntityID", "ZIndex", "Geometry"} <= set(table_columns(path)):
            return path
    hdf5 = folder / "cell_boundaries"
    return hdf5 if listed(hdf5, "*.hdf5") else None


def read_outlines(path: Path) -> pd.DataFrame:
    """Read what :func:`find_outlines` found.

    Args:
        path: Parquet file with ``EntityID``, ``ZIndex`` and ``Geometry``, or folder of HDF5 files.

    Returns:
        One row per cell and plane: ``cell_id`` (string), ``z_plane``, ``outline`` (shapely).

    Raises:
        ImportError: The extra ``[io]`` is not installed.
        ValueError: A file is damaged, or no outline is in it.
    """
    shapely = require("shapely", extra="io", purpose=_PURPOSE)
    if path.is_dir():
        rows = [row for file in listed(path, "*.hdf5") for row in _from_hdf5(file, shapely)]
        table = pd.DataFrame(rows, columns=["cell_id", "z_plane", "outline"])
    else:
        names = {"EntityID": "cell_id", "ZIndex": "z_plane", "Geometry": "outline"}
        table = read_table(path, list(names)).rename(columns=names)
        try:
            table["outline"] = shapely.from_wkb(table["outline"].to_numpy())
        except shapely.errors.GEOSException as err:
            raise ValueError(f"Expected outlines as WKB in {path.name}, got {err}") from err
        table["cell_id"] = table["cell_id"].astype(str)
    if table.empty:
        raise ValueError(f"Expected outlines of cells in {path.name}, got none")
    return table


def outline_centroids(outlines: pd.DataFrame) -> pd.DataFrame:
    """Mean over planes of the centroid of each cell, weighted by area.

    Args:
        outlines: As :func:`read_outlines` gives them.

    Returns:
        Indexed by cell id: ``x``, ``y``.
    """
    shapely = require("shapely", extra="io", purpose=_PURPOSE)
    centre = shapely.get_coordinates(shapely.centroid(outlines["outline"].to_numpy()))
    area = shapely.area(outlines["outline"].to_numpy())
    weighted = pd.DataFrame({"x": centre[:, 0] * area, "y": centre[:, 1] * area, "area": area})
    total = weighted.groupby(outlines["cell_id"].to_numpy()).sum()
    return total[["x", "y"]].div(total["area"], axis=0)


def cells_of_molecules(molecules: pd.DataFrame, outlines: pd.DataFrame) -> pd.Series:
    """The cell whose outline, in the plane of the molecule, a molecule lies in.

    Args:
        molecules: Table with ``x_um``, ``y_um`` and ``z_plane``.
        outlines: As :func:`read_outlines` gives them.

    Returns:
        Cell id of each molecule, missing outside of cells.

    Raises:
        ValueError: The molecules name no plane.
    """
    shapely = require("shapely", extra="io", purpose=_PURPOSE)
    if "z_plane" not in molecules:
        raise ValueError("Expected the plane of each molecule (global_z), got none")
    found = np.full(len(molecules), None, dtype=object)
    xy = molecules[["x_um", "y_um"]].to_numpy(np.float64)
    plane = molecules["z_plane"].to_numpy()
    for z, part in outlines.groupby("z_plane"):
        tree = shapely.STRtree(part["outline"].to_numpy())
        ids = part["cell_id"].to_numpy()
        rows = np.flatnonzero(plane == z)
        for start in range(0, len(rows), _AT_ONCE):
            block = rows[start : start + _AT_ONCE]
            point, cell = tree.query(shapely.points(xy[block]), predicate="within")
            found[block[point]] = ids[cell]
    return pd.Series(found, index=molecules.index, dtype=object)


def _from_hdf5(path: Path, shapely: Any) -> list[tuple[str, int, Any]]:
    """Outlines of one field of view; loops over its few hundred cells, as the file does."""
    rows = []
    try:
        with h5py.File(path) as file:
            for cell, group in file["featuredata"].items():
                for plane in (name for name in group if name.startswith("zIndex_")):
                    rings = [part["coordinates"][0] for part in group[plane].values()]
                    if rings:
                        outline = shapely.union_all([shapely.polygons(ring) for ring in rings])
                        rows.append((cell, int(plane.removeprefix("zIndex_")), outline))
    except (OSError, KeyError, ValueError) as err:
        raise ValueError(
            f"Expected featuredata/<cell>/zIndex_<plane>/p_<n>/coordinates in {path.name}: {err}"
        ) from err
    return rows
