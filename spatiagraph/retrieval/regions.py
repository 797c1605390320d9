"""Regions drawn on a slide: which cells lie inside."""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_RIM_UM = 1e-6  # what lies on the outline counts, whichever way the outline runs


def in_region(pos: NDArray[np.floating], region: Any) -> NDArray[np.bool_]:
    """Cells inside a region.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        region: Corners in µm, ``[V, 2]`` as (x, y), in either direction; or a polygon or several,
            with or without holes, as a shapely geometry or as GeoJSON.

    Returns:
        ``[N]`` bool. Cells on the outline are inside.

    Raises:
        ValueError: If the region is no polygon.

    Examples:
        >>> square = [(0, 0), (10, 0), (10, 10), (0, 10)]
        >>> in_region(np.array([[5.0, 5.0], [15.0, 5.0]]), square)
        array([ True, False])
    """
    from matplotlib.path import Path as Outline

    inside = np.zeros(len(pos), dtype=bool)
    for rings in _polygons(region):
        one = np.zeros(len(pos), dtype=bool)
        for ring in rings:  # a hole turns what it covers once more
            corners = _corners(ring)
            outwards = np.copysign(_RIM_UM, _signed_area(corners))
            one ^= Outline(corners).contains_points(pos, radius=outwards)
        inside |= one
    return inside


def read_region(path: str | os.PathLike[str]) -> Any:
    """A region from a file, for :func:`in_region`.

    Args:
        path: GeoJSON, or a ``.csv`` table of corners with columns ``x`` and ``y`` (or ``x_um``
            and ``y_um``); in µm.

    Raises:
        ValueError: If the file is neither.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        table = pd.read_csv(path)
        for x, y in (("x", "y"), ("x_um", "y_um")):
            if x in table and y in table:
                return table[[x, y]].to_numpy(dtype=np.float64)
        raise ValueError(
            f"Expected columns x and y in {path.name}, got {', '.join(map(str, table))}"
        )
    try:
        region = json.loads(path.read_text())
    except ValueError as err:
        raise ValueError(f"Expected GeoJSON or a .csv of corners, {path.name} is neither") from err
    list(_polygons(region))
    return region


def _polygons(region: Any) -> Iterator[list[Any]]:
    """Each polygon as its rings, the outline first."""
    shape = getattr(region, "__geo_interface__", region)
    if isinstance(shape, list) and shape and isinstance(shape[0], Mapping):
        for part in shape:  # as QuPath writes several annotations
            yield from _polygons(part)
        return
    if not isinstance(shape, Mapping):
        yield [shape]
        return
    kind = shape.get("type")
    if kind == "Polygon":
        yield list(shape["coordinates"])
    elif kind == "MultiPolygon":
        yield from map(list, shape["coordinates"])
    elif kind == "Feature":
        yield from _polygons(shape["geometry"])
    elif kind in ("FeatureCollection", "GeometryCollection"):
        for part in shape["features" if kind == "FeatureCollection" else "geometries"]:
            yield from _polygons(part)
    else:
        raise ValueError(f"Expected a region made of polygons, got a geometry of type {kind!r}")


def _signed_area(corners: NDArray[np.float64]) -> float:
    """Twice the area of a polygon, negative where its corners run clockwise (with y upwards)."""
    x, y = (corners - corners[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def _corners(ring: Any) -> NDArray[np.float64]:
    corners = np.asarray(ring, dtype=np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError(
            f"Expected a region of at least three corners [V, 2] in µm, got shape {corners.shape}"
        )
    if not np.isfinite(corners).all():
        raise ValueError("Expected finite corners of the region, got NaN or infinity")
    return corners
