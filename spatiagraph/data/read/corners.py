"""Outlines of cells from any file that has them: tables of corners, GeoJSON, those of MERSCOPE."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph._json import read_json
from spatiagraph._optional import require
from spatiagraph._reasons import reason
from spatiagraph.data.checks import check_names, name_rows
from spatiagraph.data.outlines import Outlines
from spatiagraph.data.read.molecules import as_text
from spatiagraph.data.read.outlines import read_outlines
from spatiagraph.data.read.tables import numbers, read_table, table_columns

_MAX_BYTES = 8 * 2**30  # outlines of a million cells
_PAIRS = (
    ("vertex_x", "vertex_y"), ("x_um", "y_um"), ("x_global_px", "y_global_px"), ("x", "y"),
)  # fmt: skip
_CELLS = ("cell_id", "cell_ID", "cellID", "cell", "EntityID")
_FEW = 0.01  # share of outlines that may be elsewhere: single cells of a segmentation go wrong


@dataclass(frozen=True)
class OutlinesFile:
    """File with the outlines of the cells of a slide.

    Attributes:
        path: The file, or a folder of MERSCOPE's HDF5.
        mpp: µm per unit of its coordinates.
    """

    path: Path
    mpp: float = 1.0

    def read(self) -> pd.DataFrame:
        """Read the corners: ``cell_id``, ``x_um``, ``y_um``, those of a cell in order.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is damaged or of another kind.
            ImportError: Outlines of MERSCOPE need the extra ``[io]``.
        """
        if not self.path.exists():
            raise FileNotFoundError(f"Expected outlines of cells at {self.path}, found no file")
        if self.path.suffix.lower() in (".geojson", ".json"):
            table = geojson_corners(self.path)
        elif self.path.is_dir() or "Geometry" in table_columns(self.path):
            table = _of_polygons(self.path)
        else:
            table = _of_table(self.path)
        table[["x_um", "y_um"]] *= self.mpp
        return table

    def notes(self) -> dict[str, Any]:
        """Notes by which the same outlines are found again."""
        return {"outlines_file": str(self.path.resolve()), "outlines_mpp": self.mpp}


def place_outlines(
    table: pd.DataFrame, cells: pd.Index, pos: NDArray[np.float64]
) -> tuple[Outlines, str | None]:
    """Outlines of the cells of a slide; a few that are elsewhere are left out, with a line on it.

    Args:
        table: Result of :meth:`OutlinesFile.read`.
        cells: Ids of the cells.
        pos: Their centres in µm, ``[N, 2]``.

    Raises:
        ValueError: Outlines are of other cells, or two cells have one id.
    """
    check_names(cells, "cell ids", "Outlines find their cells by them: rename the cells")
    outlines = Outlines.from_table(table, cells)
    apart = ~outlines.around(pos)
    num, known = int(apart.sum()), int(outlines.known.sum())
    if not num or num > _FEW * known:
        return outlines, None  # the slide refuses many
    kept = table[~table["cell_id"].isin(cells[apart])]
    text = name_rows(cells, np.flatnonzero(apart))
    line = f"Left out {num} of {known} outlines whose cells lie outside of them: {text}"
    return Outlines.from_table(kept, cells), line


def geojson_corners(path: Path) -> pd.DataFrame:
    """Corners of the polygons of a GeoJSON file: ``cell_id``, ``x_um``, ``y_um``.

    A polygon is called by its property ``cell_id``, or else by the ``id`` of its feature. Of
    several parts the one with most corners counts, and holes are filled.

    Raises:
        ValueError: The file is damaged, or a feature is no polygon or has no name.
    """
    found = read_json(path, max_bytes=_MAX_BYTES)
    features = found.get("features") if isinstance(found, dict) else None
    if not isinstance(features, list) or not features:
        raise ValueError(f"Expected a FeatureCollection of outlines in {path.name}, got none")
    ids: list[str] = []
    rings: list[np.ndarray] = []
    for row, feature in enumerate(features):
        try:
            ids.append(_name(feature))
            rings.append(_ring(feature["geometry"]))
        except (KeyError, TypeError, ValueError) as err:
            raise ValueError(
                f"Expected a cell_id and a polygon for each outline in {path.name}, got another "
                f"thing in feature {row}: {reason(err)}"
            ) from err
    twice = np.flatnonzero(pd.Series(ids).duplicated())
    if len(twice):
        raise ValueError(
            f"Expected one outline of each cell in {path.name}, got several of "
            f"{ids[twice[0]]!r} and {len(twice) - 1} others. Parts of one cell "
            "are a MultiPolygon"
        )
    return _corners(ids, rings)


def _name(feature: dict[str, Any]) -> str:
    properties = feature.get("properties")
    found = (properties if isinstance(properties, dict) else {}).get("cell_id", feature.get("id"))
    if not isinstance(found, str | int) or isinstance(found, bool):
        raise ValueError("no cell_id")
    return str(found)


def _ring(geometry: dict[str, Any]) -> np.ndarray:
    """Outline of a cell, ``[V, 2]``; of several parts the one with most corners."""
    kind = geometry["type"] if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError("no geometry" if kind is None else f"a {kind}")
    parts = geometry["coordinates"]
    outlines = [parts[0]] if kind == "Polygon" else [part[0] for part in parts]
    ring = np.asarray(max(outlines, key=len), dtype=np.float64)
    if ring.ndim != 2 or ring.shape[1] < 2 or len(ring) < 3 or not np.isfinite(ring).all():
        raise ValueError(f"corners of shape {list(ring.shape)}")
    return ring[:, :2]


def _of_table(path: Path) -> pd.DataFrame:
    """Corners of a table: a row each, with the cell and x and y."""
    have = table_columns(path)
    cell = next((c for c in _CELLS if c in have), None)
    pair = next((p for p in _PAIRS if set(p) <= set(have)), None)
    if cell is None or pair is None:
        raise ValueError(
            f"Expected a column {' or '.join(_CELLS)} and corners as {_PAIRS[0][0]} and "
            f"{_PAIRS[0][1]} or x and y in {path.name}, got {', '.join(have)}"
        )
    fov = ["fov"] if pair[0] == "x_global_px" and "fov" in have else []  # CosMx counts by field
    table = read_table(path, [cell, *fov, *pair], needed=[cell, *fov, *pair], text=[cell])
    ids = as_text(table[cell], f" of {path.name}")
    if fov:
        ids = ids + "_" + as_text(table["fov"], f" of {path.name}")
    xy = numbers(table, pair, path.name)
    return pd.DataFrame({"cell_id": ids.to_numpy(), "x_um": xy[:, 0], "y_um": xy[:, 1]})


def _of_polygons(path: Path) -> pd.DataFrame:
    """Corners of MERSCOPE's outlines: of each cell the plane and the part of largest area."""
    shapely = require("shapely", extra="io", purpose="Reading the outlines of cells")
    table = read_outlines(path)
    parts, owner = shapely.get_parts(table["outline"].to_numpy(), return_index=True)
    cell = table["cell_id"].to_numpy()[owner]
    order = np.argsort(-shapely.area(parts), kind="stable")
    first = order[~pd.Series(cell[order]).duplicated().to_numpy()]
    rings = [shapely.get_coordinates(part.exterior)[:-1] for part in parts[first]]
    return _corners([str(name) for name in cell[first]], rings)


def _corners(ids: list[str], rings: list[np.ndarray]) -> pd.DataFrame:
    xy = np.concatenate(rings)
    cell = np.repeat(np.array(ids, dtype=object), [len(ring) for ring in rings])
    return pd.DataFrame({"cell_id": cell, "x_um": xy[:, 0], "y_um": xy[:, 1]})
