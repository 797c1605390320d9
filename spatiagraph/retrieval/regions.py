"""Regions drawn on a slide: which cells lie inside."""

import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatiagraph._json import read_json
from spatiagraph.data.checks import FAR_UM
from spatiagraph.retrieval.corners import read_corners
from spatiagraph.retrieval.geojson import polygons

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
        path: GeoJSON, or a ``.csv`` table of the corners of one outline or several, as Xenium
            Explorer exports it (see :func:`~spatiagraph.retrieval.corners.read_corners`); in µm.

    Raises:
        ValueError: If the file is neither, or what it holds is no region.
    """
    path = Path(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        rings: list[Any] = list(read_corners(path))
        region: Any = rings[0]
        if len(rings) > 1:
            region = {"type": "MultiPolygon", "coordinates": [[ring.tolist()] for ring in rings]}
    else:
        region = read_json(path)
        rings = list(chain.from_iterable(polygons(region, repr(path.name))))
    try:
        for ring in rings:
            _corners(ring)
    except ValueError as err:
        raise ValueError(f"{err}, in {path.name}") from err
    return region


def _polygons(region: Any) -> list[list[Any]]:
    """Each polygon as its rings, the outline first."""
    shape = getattr(region, "__geo_interface__", region)
    if isinstance(shape, Mapping):
        return polygons(dict(shape), "the region")
    if isinstance(shape, list) and shape and isinstance(shape[0], Mapping):
        return polygons(shape, "the region")
    return [[shape]]


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
    if not (np.abs(corners) <= FAR_UM).all():  # nor NaN
        raise ValueError(
            f"Expected corners of the region within {FAR_UM:g} µm of the origin, got "
            f"{corners[~(np.abs(corners) <= FAR_UM)][0]:g}"
        )
    return corners
