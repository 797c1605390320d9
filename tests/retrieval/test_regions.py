import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from spatiagraph.retrieval import in_region, read_region

SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]
HOLE = [(4, 4), (6, 4), (6, 6), (4, 6)]
FAR = [(20, 20), (30, 20), (25, 30)]
POS = np.array([[1.0, 1], [5, 5], [25, 22], [15, 15], [10.5, 5]])


def _geojson(*polygons):
    return {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": list(rings)}}
            for rings in polygons
        ],
    }


@pytest.mark.parametrize(
    ("region", "inside"),
    [
        (SQUARE, [True, True, False, False, False]),
        (SQUARE[::-1], [True, True, False, False, False]),
        (_geojson([SQUARE, HOLE], [FAR]), [True, False, True, False, False]),
        (_geojson([SQUARE], [SQUARE]), [True, True, False, False, False]),
        (_geojson([SQUARE], [FAR])["features"], [True, True, True, False, False]),
        ({"type": "MultiPolygon", "coordinates": [[SQUARE], [FAR]]}, [True, True, True, False, 0]),
    ],
    ids=["corners", "turned round", "hole and island", "the same twice", "a list", "several"],
)
def test_cells_inside_a_region_are_found(region, inside):
    assert_array_equal(in_region(POS, region), np.array(inside, dtype=bool))


@pytest.mark.parametrize("turn", [1, -1])
def test_cells_on_the_outline_are_inside_whichever_way_it_runs(turn):
    on = np.array([[0.0, 0], [0, 5], [5, 0], [10, 5], [5, 10], [10, 10]])
    for far in (0, 1e5):
        assert in_region(on + far, np.add(SQUARE, far)[::turn]).all()
        assert not in_region((on - 5) * 1.001 + 5 + far, np.add(SQUARE, far)[::turn]).any()


def test_a_shapely_geometry_is_a_region_and_shapely_agrees():
    shapely = pytest.importorskip("shapely")
    rng = np.random.default_rng(0)
    pos = rng.uniform(-5, 35, size=(2000, 2))
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    star = 15 + rng.uniform(5, 15, 200)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    for drawn in (
        shapely.Polygon(SQUARE, [HOLE]).union(shapely.Polygon(FAR)),
        shapely.Polygon(star),
        shapely.Polygon(star[::-1]),
    ):
        assert_array_equal(in_region(pos, drawn), shapely.contains_xy(drawn, pos))


def test_a_region_is_read_from_geojson_and_from_a_table(tmp_path):
    (tmp_path / "a.geojson").write_text(json.dumps(_geojson([SQUARE])))
    (tmp_path / "a.csv").write_text("x_um,y_um\n" + "\n".join(f"{x},{y}" for x, y in SQUARE))
    for file in ("a.geojson", "a.csv"):
        assert in_region(POS, read_region(tmp_path / file)).tolist() == [True, True, *[False] * 3]


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (SQUARE[:2], "at least three corners"),
        ([(0, 0), (1, np.nan), (2, 2)], "within 1e\\+09 µm of the origin, got nan"),
        (
            {"type": "Point", "coordinates": [0, 0]},
            "'FeatureCollection' as 'type' of the region, got 'Point'",
        ),
    ],
)
def test_what_is_no_region_is_refused(region, message):
    with pytest.raises(ValueError, match=message):
        in_region(POS, region)


def test_a_file_that_is_no_region_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("left,top\n1,2\n")
    with pytest.raises(ValueError, match="columns x and y in a.csv, got left, top"):
        read_region(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("x,y\n1,2\n3,b\n4,5\n")
    with pytest.raises(ValueError, match="numbers in column 'y' of b.csv, got 'b' in row 1"):
        read_region(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("x,y\n1,2\n3,\n4,5\n")
    with pytest.raises(ValueError, match="within 1e\\+09 µm of the origin, got nan, in c.csv"):
        read_region(tmp_path / "c.csv")
    (tmp_path / "a.txt").write_text("a square")
    with pytest.raises(ValueError, match="Expected JSON in '.*a.txt'"):
        read_region(tmp_path / "a.txt")


RING = [[0, 0], [9, 0], [9, 9]]
POLYGON = {"type": "Polygon", "coordinates": [RING]}


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ({}, "the key 'type' in 'a.geojson', found none"),
        ([], "a polygon or several in 'a.geojson', got none"),
        (None, "an object as 'a.geojson', got None"),
        ("Polygon", "an object as 'a.geojson', got 'Polygon'"),
        ([POLYGON, 3], "an object as '1' of 'a.geojson', got 3"),
        ({"type": "Polygon"}, "the key '.*coordinates' in 'a.geojson', found none"),
        ({"type": "Polygon", "coordinates": RING}, "coordinates.0.0' of 'a.geojson', got 0"),
        ({"type": "Polygon", "coordinates": [[*RING, ["9", 0]]]}, "coordinates.0.3.0'.*got '9'"),
        ({"type": "Polygon", "coordinates": [[[0, 0, 0]] * 3]}, "at most 2 items as 'Poly.*0.0"),
        ({"type": "Polygon", "coordinates": [RING[:2]]}, "three corners .*in a.geojson"),
        ({"type": "Polygon", "coordinates": [[[0, 1e300], *RING]]}, "got 1e\\+300, in a.geojson"),
        ({"type": "Polygon", "coordinates": []}, "a polygon or several in 'a.geojson', got none"),
        ({"type": "MultiPolygon", "coordinates": [RING]}, "MultiPolygon.coordinates.0.0.0'"),
        ({"type": "Feature", "geometry": None}, "geometry' of 'a.geojson', got None"),
        (
            {"type": "Feature", "geometry": {"type": "LineString"}},
            "Feature.geometry.type' of 'a.geojson', got 'LineString'",
        ),
        ({"type": "FeatureCollection", "features": []}, "a polygon or several"),
        ({"type": "FeatureCollection", "features": [POLYGON]}, "features.0.type'"),
        ({"type": "GeometryCollection", "geometries": {}}, "geometries' of 'a.geojson'"),
    ],
)
def test_geojson_of_another_shape_is_refused_with_its_place(region, message, tmp_path):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps(region), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as refused:
        read_region(path)
    assert "\n" not in str(refused.value)


def test_what_programs_add_to_geojson_is_not_read(tmp_path):
    extra = {"id": 7, "properties": {"name": "edge", "color": [1, None]}, "bbox": "none"}
    feature = {"type": "Feature", "geometry": {**POLYGON, "plane": {"z": 0}}, **extra}
    region = {"type": "FeatureCollection", "features": [feature], "crs": {}}
    (tmp_path / "a.geojson").write_text(json.dumps(region), encoding="utf-8")
    assert in_region(POS, read_region(tmp_path / "a.geojson")).tolist() == [
        True,
        True,
        *[False] * 3,
    ]
