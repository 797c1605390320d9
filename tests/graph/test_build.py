"""Graphs against hand-counted lattices, a brute-force sort, scipy and squidpy."""

import logging
from importlib.util import find_spec, module_from_spec

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from torch_geometric import EdgeIndex

from spatiagraph.graph import delaunay_graph, grid_graph, knn_graph, radius_graph

SQUARE = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]


def uniform(num, seed=0, side=1000.0):
    return side * np.random.default_rng(seed).random((num, 2))


def hexagonal(rows, cols, pitch=100.0):
    col, row = np.meshgrid(np.arange(cols), np.arange(rows))
    x, y = (col + 0.5 * (row % 2)) * pitch, row * pitch * np.sqrt(0.75)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def square(rows, cols, pitch=100.0):
    return pitch * np.stack(np.meshgrid(np.arange(cols), np.arange(rows)), -1).reshape(-1, 2)


def clustered(num, seed=0):
    """Tight clusters far apart: one bin would hold hundreds."""
    generator = np.random.default_rng(seed)
    center = 1e5 * generator.random((5, 2))
    return center[generator.integers(5, size=num)] + generator.normal(size=(num, 2))


def lognormal(num, seed=0):
    return np.random.default_rng(seed).lognormal(0, 3, (num, 2))


def duplicated(num, seed=0):
    return uniform(num // 4, seed).repeat(4, axis=0)[np.random.default_rng(seed).permutation(num)]


def crowded_lattices():
    """Lattices far apart: all distances tie, and one bin holds a whole lattice."""
    pos = np.concatenate(
        [square(12, 12, 1.0) + 1e6 * np.array(at) for at in ((0, 0), (1, 3), (2, 1))]
    )
    return pos[np.random.default_rng(0).permutation(len(pos))]


CLOUDS = {
    "crowded lattices": crowded_lattices(),
    "uniform": uniform(700),
    "hexagonal": hexagonal(20, 21),
    "square": square(20, 21),
    "integers": np.random.default_rng(1).integers(0, 12, (400, 2)).astype(float),
    "duplicated": duplicated(400),
    "one position": np.zeros((200, 2)),
    "line": np.stack([np.arange(300.0), np.zeros(300)], axis=1),
    "clustered": clustered(600),
    "lognormal": lognormal(600),
    "far from the origin": uniform(500) + 1e7,
    "dense core, sparse rim": np.concatenate([uniform(600, side=1.0), uniform(60, 1, 1e4)]),
}


def pairs(edge_index):
    return set(map(tuple, edge_index.t().tolist()))


def squared_distances(pos):
    offset = pos[:, None] - pos[None]
    return offset[..., 0] ** 2 + offset[..., 1] ** 2


def brute_knn(pos, k):
    """Sort all distances; equal ones stay in the order of rows."""
    distance = squared_distances(pos)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return {(int(j), i) for i, row in enumerate(nearest) for j in row}


def assert_sorted(edge_index, num_cells):
    assert isinstance(edge_index, EdgeIndex)
    edge_index.validate()
    assert edge_index.is_sorted_by_col
    assert edge_index.sparse_size() == (num_cells, num_cells)
    source, target = edge_index.as_tensor()
    assert (torch.diff(target * num_cells + source) > 0).all()


# knn_graph ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 4, 6, 12])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_knn_graph_equals_a_sort_of_all_distances(cloud, k):
    pos = CLOUDS[cloud]
    edge_index = knn_graph(pos, k)
    assert_sorted(edge_index, len(pos))
    assert pairs(edge_index) == brute_knn(pos, k)


@pytest.mark.parametrize("k", [2, 3])
def test_knn_graph_of_a_square_prefers_sides_then_the_diagonal(k):
    edges = pairs(knn_graph(SQUARE, k))
    sides = {(0, 1), (1, 0), (0, 2), (2, 0), (1, 3), (3, 1), (2, 3), (3, 2)}
    assert edges == (sides if k == 2 else sides | {(0, 3), (3, 0), (1, 2), (2, 1)})


def test_knn_graph_gives_equal_distances_to_the_lower_row():
    assert knn_graph([[0, 0], [1, 0], [-1, 0], [0, 1]], k=1)[0].tolist() == [1, 0, 0, 0]


def test_knn_graph_reaches_all_other_cells_when_k_is_one_less_than_their_number():
    pos = uniform(9)
    assert pairs(knn_graph(pos, 8)) == {(i, j) for i in range(9) for j in range(9) if i != j}


def test_knn_graph_does_not_depend_on_the_order_of_cells():
    pos, perm = uniform(300), np.random.default_rng(2).permutation(300)
    shuffled = knn_graph(pos[perm], 5)
    assert {(int(perm[i]), int(perm[j])) for i, j in pairs(shuffled)} == pairs(knn_graph(pos, 5))


def test_knn_graph_does_not_depend_on_the_number_of_threads():
    pos, before, found = uniform(20_000), torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        try:
            found.append(knn_graph(pos, 8))
        finally:
            torch.set_num_threads(before)
    assert torch.equal(*found)


def test_knn_graph_of_cells_spread_over_many_bins_equals_scipy():
    pos = uniform(30_000)
    expected = np.sort(cKDTree(pos).query(pos, k=9)[1][:, 1:], axis=1)
    assert np.array_equal(knn_graph(pos, 8)[0].numpy().reshape(-1, 8), expected)


def test_knn_graph_takes_torch_in_any_precision():
    pos = torch.tensor(SQUARE, dtype=torch.float32)
    assert torch.equal(knn_graph(pos, 2), knn_graph(SQUARE, 2))


def test_knn_graph_can_include_the_cell_itself():
    pos = uniform(50)
    own = {(i, i) for i in range(50)}
    edge_index = knn_graph(pos, 3, include_self=True)
    assert_sorted(edge_index, 50)
    assert pairs(edge_index) == pairs(knn_graph(pos, 3)) | own


def test_compilation_is_announced(caplog):
    spec = find_spec("spatiagraph.graph.build.bins")
    bins = module_from_spec(spec)  # anew: that of the other tests has said it
    spec.loader.exec_module(bins)
    with caplog.at_level(logging.INFO, logger="spatiagraph"):
        bins.bins_knn(bins.even_bins(uniform(20), 2.0), 2)
    assert "compiled on first use" in caplog.text


# radius_graph ------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.7, 60.0, 100.0])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_radius_graph_equals_all_distances_compared(cloud, radius):
    pos = CLOUDS[cloud]
    edge_index = radius_graph(pos, radius)
    assert_sorted(edge_index, len(pos))
    target, source = np.nonzero(squared_distances(pos) <= radius * radius)
    expected = set(zip(source.tolist(), target.tolist(), strict=True))
    assert pairs(edge_index) == expected - {(i, i) for i in range(len(pos))}


def test_radius_graph_is_symmetric_and_equals_scipy_on_many_bins():
    pos = uniform(20_000)
    edges = pairs(radius_graph(pos, 15.0))
    half = {tuple(pair) for pair in cKDTree(pos).query_pairs(15.0, output_type="ndarray").tolist()}
    assert edges == half | {(j, i) for i, j in half}


def test_radius_graph_joins_cells_at_exactly_the_radius():
    assert pairs(radius_graph([[0, 0], [3, 4], [9, 9]], 5.0)) == {(0, 1), (1, 0)}


def test_radius_graph_keeps_the_nearest_when_limited():
    pos = uniform(300)
    limited, full, nearest = radius_graph(pos, 60, max_num_neighbors=4), None, knn_graph(pos, 4)
    full = pairs(radius_graph(pos, 60))
    assert_sorted(limited, 300)
    assert pairs(limited) == full & pairs(nearest)


def test_radius_graph_of_lonely_cells_and_of_no_cells_is_empty():
    assert radius_graph([[0, 0]], 5).shape == (2, 0)
    assert radius_graph([[0, 0]], 5, max_num_neighbors=3).shape == (2, 0)
    assert radius_graph(np.empty((0, 2)), 5).shape == (2, 0)


@pytest.mark.parametrize("make", [uniform, clustered])
def test_radius_graph_refuses_to_explode(make):
    with pytest.raises(ValueError, match=r"per cell\) for radius_um=500.*max_num_neighbors"):
        radius_graph(make(150_000), 500.0)


# delaunay_graph ----------------------------------------------------------------------------------


def test_delaunay_graph_of_a_triangle_and_its_centre_joins_all():
    pos = [[0, 0], [3, 0], [0, 3], [1, 1]]
    assert pairs(delaunay_graph(pos)) == {(i, j) for i in range(4) for j in range(4) if i != j}


def test_delaunay_graph_of_a_hexagonal_lattice_gives_inner_spots_six_neighbors():
    edge_index = delaunay_graph(hexagonal(9, 9), max_um=110)
    assert_sorted(edge_index, 81)
    degree = torch.bincount(edge_index[1], minlength=81).reshape(9, 9)
    assert (degree[1:-1, 1:-1] == 6).all()


def test_delaunay_graph_drops_edges_longer_than_the_limit():
    pos = uniform(200)
    source, target = delaunay_graph(pos).as_tensor().numpy()
    keep = np.linalg.norm(pos[source] - pos[target], axis=1) <= 70
    expected = set(zip(source[keep].tolist(), target[keep].tolist(), strict=True))
    assert pairs(delaunay_graph(pos, max_um=70)) == expected


def test_delaunay_graph_joins_copies_lines_and_pairs():
    assert pairs(delaunay_graph([[0, 0], [2, 0], [1, 1], [2, 0]])) >= {(1, 3), (3, 1)}
    assert pairs(delaunay_graph([[2, 2], [0, 0], [1, 1]])) == {(1, 2), (2, 1), (2, 0), (0, 2)}
    assert pairs(delaunay_graph([[0, 0], [5, 5]])) == {(0, 1), (1, 0)}
    assert delaunay_graph([[0, 0]]).shape == (2, 0)


# grid_graph --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_rings", "neighbors"), [(1, 6), (2, 18), (3, 36)])
def test_grid_graph_of_a_hexagonal_lattice_has_6_18_36_neighbors(num_rings, neighbors):
    edge_index = grid_graph(hexagonal(11, 11), num_rings=num_rings)
    assert_sorted(edge_index, 121)
    degree = torch.bincount(edge_index[1], minlength=121).reshape(11, 11)
    assert (degree[3:-3, 3:-3] == neighbors).all()
    assert degree.max() == neighbors


@pytest.mark.parametrize(("num_rings", "neighbors"), [(1, 4), (2, 12), (3, 24)])
def test_grid_graph_of_a_square_lattice_has_4_12_24_neighbors(num_rings, neighbors):
    degree = torch.bincount(grid_graph(square(11, 11), num_rings=num_rings)[1]).reshape(11, 11)
    assert (degree[3:-3, 3:-3] == neighbors).all()
    assert degree.max() == neighbors


def test_grid_graph_does_not_step_over_a_hole():
    row = [[0, 0], [1, 0], [3, 0], [4, 0], [0, 1], [1, 1], [3, 1], [4, 1]]
    assert not {(1, 2), (2, 1)} & pairs(grid_graph(row, num_rings=2))


def test_grid_graph_refuses_cells_that_are_no_lattice():
    with pytest.raises(ValueError, match="regular lattice.*knn_graph"):
        grid_graph(uniform(200))


def test_grid_graph_finds_the_lattice_of_rounded_and_turned_spots():
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    degree = torch.bincount(grid_graph(np.round(hexagonal(9, 9) @ turn))[1]).reshape(9, 9)
    assert (degree[1:-1, 1:-1] == 6).all()


# All builders ------------------------------------------------------------------------------------

BUILDERS = {
    "knn": lambda pos, **slide: knn_graph(pos, 4, **slide),
    "radius": lambda pos, **slide: radius_graph(pos, 120.0, **slide),
    "radius, limited": lambda pos, **slide: radius_graph(pos, 120, max_num_neighbors=3, **slide),
    "delaunay": delaunay_graph,
    "grid": grid_graph,
}


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("interleaved", [False, True])
def test_two_slides_at_one_place_give_the_graph_of_each_alone(builder, interleaved):
    build, first, second = BUILDERS[builder], hexagonal(6, 7), hexagonal(5, 5)
    slide = np.repeat([7, 3], [len(first), len(second)])
    order = np.random.default_rng(0).permutation(len(slide)) if interleaved else slice(None)
    pos, slide = np.concatenate([first, second])[order], slide[order]
    both = build(pos, slide=slide)
    assert_sorted(both, len(pos))
    expected = set()
    for name in (3, 7):
        rows = np.flatnonzero(slide == name)
        expected |= {(int(rows[i]), int(rows[j])) for i, j in pairs(build(pos[rows]))}
    assert pairs(both) == expected


@pytest.mark.parametrize("builder", ["knn", "radius", "delaunay"])
def test_moving_the_slide_changes_no_edge(builder):
    angle = 1.1
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    pos, build = uniform(300, seed=5), BUILDERS[builder]
    assert pairs(build(pos @ turn + 5000.0)) == pairs(build(pos))
    assert pairs(build(pos * [1, -1])) == pairs(build(pos))


@pytest.mark.parametrize("builder", BUILDERS)
def test_unusable_positions_are_refused_with_their_rows(builder):
    build = BUILDERS[builder]
    with pytest.raises(ValueError, match=r"1 of 9 rows \(first: \[4\]\)"):
        build(np.where(np.arange(9)[:, None] == 4, np.nan, square(3, 3)))
    with pytest.raises(ValueError, match=r"shape \[N, 2\], got \[9, 3\]"):
        build(np.zeros((9, 3)))
    with pytest.raises(ValueError, match=r"each of 9 cells, got shape \[8\]"):
        build(square(3, 3), slide=np.zeros(8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: knn_graph(uniform(4), 0), "'k' of at least 1, got 0"),
        (lambda: knn_graph(uniform(4), 4), "k=4 for a slide of 4 cells"),
        (lambda: knn_graph(uniform(9), 3, slide=[0] * 6 + [1] * 3), "k=3 for a slide of 3 cells"),
        (lambda: radius_graph(uniform(4), 0), "'radius_um' above 0, got 0"),
        (lambda: radius_graph(uniform(4), float("nan")), "'radius_um' above 0, got nan"),
        (lambda: radius_graph(uniform(4), 1, max_num_neighbors=0), "at least 1, got 0"),
        (lambda: delaunay_graph(uniform(4), max_um=-1), "'max_um' above 0, got -1"),
        (lambda: grid_graph(uniform(4), num_rings=0), "'num_rings' of at least 1, got 0"),
        (lambda: grid_graph(uniform(4), kind="tri"), '"hex" or "square", got \'tri\''),
    ],
)
def test_unusable_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# squidpy -----------------------------------------------------------------------------------------


def squidpy_pairs(pos, **rule):
    squidpy = pytest.importorskip("squidpy")
    anndata = pytest.importorskip("anndata")
    adata = anndata.AnnData(np.zeros((len(pos), 1), dtype=np.float32))
    adata.obsm["spatial"] = pos
    squidpy.gr.spatial_neighbors(adata, **rule)
    graph = adata.obsp["spatial_connectivities"].tocoo()  # row: cell, column: its neighbour
    return set(zip(graph.col.tolist(), graph.row.tolist(), strict=True))


@pytest.mark.filterwarnings("ignore")  # squidpy's own
@pytest.mark.parametrize(
    ("build", "rule"),
    [
        (lambda pos: knn_graph(pos, 8), {"n_neighs": 8}),
        (lambda pos: radius_graph(pos, 40.0), {"radius": 40.0}),
        (delaunay_graph, {"delaunay": True}),
        (lambda pos: delaunay_graph(pos, 40.0), {"delaunay": True, "radius": (0.0, 40.0)}),
    ],
    ids=["knn", "radius", "delaunay", "delaunay with limit"],
)
def test_same_edges_as_squidpy_on_cells(build, rule):
    pos = uniform(1500)
    assert pairs(build(pos)) == squidpy_pairs(pos, coord_type="generic", **rule)


@pytest.mark.filterwarnings("ignore")  # squidpy's own
@pytest.mark.parametrize("num_rings", [1, 2, 3])
def test_same_rings_as_squidpy_on_a_lattice_with_holes(num_rings):
    pos = hexagonal(15, 15)[np.random.default_rng(0).random(225) > 0.1]
    expected = squidpy_pairs(pos, coord_type="grid", n_neighs=6, n_rings=num_rings)
    assert pairs(grid_graph(pos, num_rings=num_rings)) == expected
