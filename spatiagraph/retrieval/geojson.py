"""GeoJSON (RFC 7946) of regions: polygons, single or in collections."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from spatiagraph._json import Schema, validated

Ring = list[tuple[float, float]]
"""Corners of an outline, or of a hole in it."""


class _Shape(Schema):
    model_config = ConfigDict(extra="ignore")  # programs add ids, names and colours


class Polygon(_Shape):
    """An outline, and holes in it."""

    type: Literal["Polygon"]
    coordinates: list[Ring]


class MultiPolygon(_Shape):
    """Several polygons."""

    type: Literal["MultiPolygon"]
    coordinates: list[list[Ring]]


class GeometryCollection(_Shape):
    """Several geometries."""

    type: Literal["GeometryCollection"]
    geometries: "list[Geometry]"


class Feature(_Shape):
    """A geometry with properties, which are not read."""

    type: Literal["Feature"]
    geometry: "Geometry"


class FeatureCollection(_Shape):
    """Several features."""

    type: Literal["FeatureCollection"]
    features: list[Feature]


_BY_TYPE = Field(discriminator="type")
Geometry = Annotated[Polygon | MultiPolygon | GeometryCollection, _BY_TYPE]
Drawn = Annotated[
    Polygon | MultiPolygon | GeometryCollection | Feature | FeatureCollection, _BY_TYPE
]
for _model in (GeometryCollection, Feature, FeatureCollection):
    _model.model_rebuild()


def polygons(value: Any, where: str) -> list[list[Ring]]:
    """Every polygon as its rings, the outline first.

    Args:
        value: A GeoJSON object, or a list of them, as QuPath writes several annotations.
        where: What to call it in a message: a file in quotation marks.

    Raises:
        ValueError: If it is something else, or has no polygon.
    """
    drawn: list[Any]
    if isinstance(value, list | tuple):
        drawn = validated(value, list[Drawn], where)
    else:
        drawn = [validated(value, Drawn, where)]
    found = [rings for shape in drawn for rings in _rings(shape) if rings]
    if not found:
        raise ValueError(f"Expected a polygon or several in {where}, got none")
    return found


def _rings(shape: Any) -> list[list[Ring]]:
    match shape:
        case Polygon():
            return [shape.coordinates]
        case MultiPolygon():
            return shape.coordinates
        case Feature():
            return _rings(shape.geometry)
    parts = shape.geometries if isinstance(shape, GeometryCollection) else shape.features
    return [rings for part in parts for rings in _rings(part)]
