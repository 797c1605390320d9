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
from spatiagraph.data.read.tables import finite_numbers, numbers, read_table, table_columns

_MAX_BYTES = 8 * 2**30  # outlines of a million cells
_PAIRS = (
    ("vertex_x", "vertex_y"), ("x_um", "y_um"), ("x_global_px", "y_global_px"), ("x", "y"),
)  # fmt: skip
_CELLS = ("cell_id", "cell_ID", "cellID", "cell", "EntityID")
_ORDER = {"vertex", "vertexindex", "vertexid", "vertexorder", "vertexnumber"}
_FEW = 0.01  # share of outlines that may be elsewhere: single cells of a segmentation go wrong
_MOST = 0.9  # share of cells with an outline, below which it is said
_HALF = 0.5  # below which outlines are taken for those of another region or naming


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
    """Outlines of the cells of a slide, and a line on the cells that are left without one.

    A few outlines that are elsewhere are left out: one in a hundred, or a single one of three or
    more.

    Args:
        table: Result of :meth:`OutlinesFile.read`.
        cells: Ids of the cells.
        pos: Their centres in µm, ``[N, 2]``.

    Raises:
        ValueError: Outlines are of other cells, or of fewer than half of them, or two cells have
            one id.
    """
    check_names(cells, "cell ids", "Outlines find their cells by them: rename the cells")
    outlines = Outlines.from_table(table, cells)
    known, num_cells = int(outlines.known.sum()), len(cells)
    if known < _HALF * num_cells:
        raise ValueError(
            f"Expected outlines of most of the {num_cells} cells, got those of {known} "
            f"({known / num_cells:.0%}): {_some_ids(cells[~outlines.known])} have none, outlines "
            f"are of {_some_ids(table['cell_id'])}. Name both alike, read the cells of the region "
            "of the outlines alone (crop_um=…), or pass outlines=False"
        )
    lines = []
    flat = np.flatnonzero(cells.isin(table["cell_id"]) & ~outlines.known)
    if len(flat):
        lines.append(f"Left out {len(flat)} outlines without an area: {name_rows(cells, flat)}")
    if known < _MOST * num_cells:
        lines.append(f"Found outlines of {known} of {num_cells} cells ({known / num_cells:.0%})")
    apart = ~outlines.around(pos)
    num = int(apart.sum())
    if num and num <= max(1, _FEW * known) and 2 * num < known:  # the slide refuses many
        kept = table[~table["cell_id"].isin(cells[apart])]
        outlines = Outlines.from_table(kept, cells)
        text = name_rows(cells, np.flatnonzero(apart))
        lines.append(f"Left out {num} of {known} outlines whose cells lie outside of them: {text}")
    return outlines, ". ".join(lines) or None


def _some_ids(names: pd.Index | pd.Series) -> str:
    """Up to three names, each once."""
    return ", ".join(map(repr, pd.unique(pd.Series(names))[:3].tolist()))


def geojson_corners(path: Path) -> pd.DataFrame:
    """Corners of the polygons of a GeoJSON file: ``cell_id``, ``x_um``, ``y_um``.

    A polygon is called by its property ``cell_id``, or else by the ``id`` of its feature. Of
    several parts the one of largest area counts, and holes are filled.

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
    """Outline of a cell, ``[V, 2]``; of several parts the one of largest area."""
    kind = geometry["type"] if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError("no geometry" if kind is None else f"a {kind}")
    parts = geometry["coordinates"]
    parts = [parts] if kind == "Polygon" else parts
    rings = [np.asarray(part[0], dtype=np.float64) for part in parts if len(part)]
    if not rings:
        raise ValueError(f"a {kind} without corners")
    for ring in rings:
        if ring.ndim != 2 or ring.shape[1] < 2 or len(ring) < 3 or not np.isfinite(ring).all():
            raise ValueError(f"corners of shape {list(ring.shape)}")
    return max(rings, key=_area)[:, :2]


def _area(ring: np.ndarray) -> float:
    """Area of a polygon (shoelace formula)."""
    x, y = (ring[:, :2] - ring[0, :2]).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _of_table(path: Path) -> pd.DataFrame:
    """Corners of a table: a row each, with the cell, x and y, and perhaps its place in the ring."""
    have = table_columns(path)
    cell = next((c for c in _CELLS if c in have), None)
    pair = next((p for p in _PAIRS if set(p) <= set(have)), None)
    if cell is None or pair is None:
        raise ValueError(
            f"Expected a column {' or '.join(_CELLS)} and corners as {_PAIRS[0][0]} and "
            f"{_PAIRS[0][1]} or x and y in {path.name}, got {', '.join(have)}"
        )
    fov = ["fov"] if pair[0] == "x_global_px" and "fov" in have else []  # CosMx counts by field
    order = [c for c in have if c.lower().replace("_", "").replace(" ", "") in _ORDER][:1]
    wanted = [cell, *fov, *pair, *order]
    table = read_table(path, wanted, needed=wanted, text=[cell])
    if order:  # rows of a table may have been shuffled, those of a ring may not
        place = finite_numbers(table, order, path.name)[:, 0]
        table = table.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)
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
