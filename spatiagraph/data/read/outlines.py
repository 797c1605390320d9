"""Outlines of cells, a polygon per plane: where cells lie, and which molecules are inside."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spatiagraph._optional import require
from spatiagraph._reasons import reason
from spatiagraph.data.read.molecules import as_text
from spatiagraph.data.read.structure import Node, open_hdf5
from spatiagraph.data.read.tables import listed, numbers, read_table, table_columns

_PURPOSE = "Reading the outlines of cells"
_MEND = (
    "Outlines are featuredata/<cell>/zIndex_<plane>/p_<n>/coordinates: the file is damaged or of "
    "another kind; copy it again"
)
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
        table = read_table(path, needed=list(names)).rename(columns=names)[list(names.values())]
        table["z_plane"] = numbers(table, ["z_plane"], path.name)[:, 0]
        if missing := int(table[["cell_id", "z_plane"]].isna().any(axis=1).sum()):
            raise ValueError(
                f"Expected a cell and a plane for each outline in {path.name}, got none in "
                f"{missing} of {len(table)} rows. Drop these rows"
            )
        table["outline"] = _from_wkb(table["outline"], path.name, shapely)
        table["cell_id"] = as_text(table["cell_id"])
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


def _from_wkb(values: pd.Series, name: str, shapely: Any) -> np.ndarray:
    """Outlines as parquet files hold them, each a polygon or several."""
    wrong = [row for row, value in enumerate(values) if not isinstance(value, bytes)]
    if wrong:
        raise ValueError(
            f"Expected an outline as WKB in each row of {name}, got {values.iloc[wrong[0]]!r:.80} "
            f"in row {wrong[0]}. Drop the rows without, or write the file again"
        )
    try:
        outlines = shapely.from_wkb(values.to_numpy())
    except shapely.errors.ShapelyError as err:
        raise ValueError(
            f"Expected outlines as WKB in {name}, got {reason(err)}. The file is damaged: copy it "
            "again"
        ) from err
    area = shapely.area(outlines)
    odd = ~np.isin(shapely.get_type_id(outlines), (3, 6)) | ~((area > 0) & np.isfinite(area))
    if odd.any():  # 3 and 6: one polygon, and several
        row = int(np.argmax(odd))
        raise ValueError(
            f"Expected a polygon with an area in each row of {name}, got a "
            f"{outlines[row].geom_type} of area {area[row]:g} in row {row}. Drop such rows"
        )
    return np.asarray(outlines)


def _from_hdf5(path: Path, shapely: Any) -> list[tuple[str, int, Any]]:
    """Outlines of one field of view; loops over its few hundred cells, as the file does."""
    rows = []
    with open_hdf5(path, _MEND) as file:
        for cell in file.child("featuredata").as_group().children():
            for plane in cell.as_group().children():
                name = plane.key.rpartition("/")[2]
                if not name.startswith("zIndex_"):
                    continue
                number = name.removeprefix("zIndex_")
                if not number.isdecimal():
                    raise plane.wrong("the number of a plane", repr(name))
                rings = [_ring(part) for part in plane.as_group().children()]
                if rings:
                    try:
                        outline = shapely.union_all([shapely.polygons(ring) for ring in rings])
                    except shapely.errors.ShapelyError as err:
                        raise plane.wrong("rings that make a polygon", reason(err)) from err
                    rows.append((cell.key.rpartition("/")[2], int(number), outline))
    return rows


def _ring(part: Node) -> np.ndarray:
    """Corners of a polygon, ``[V, 2]``."""
    node = part.as_group().child("coordinates").as_dataset("fiu", "corners")
    node.check_shape(node.item.shape, (None, None, 2))
    values = node.values().astype(np.float64)
    if len(values) < 1 or values.shape[1] < 3 or not np.isfinite(values).all():
        raise node.wrong("at least three corners that are finite", f"shape {list(values.shape)}")
    return np.asarray(values[0])
