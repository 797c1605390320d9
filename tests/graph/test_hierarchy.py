"""Niches, neighbourhoods and parts of cells."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.graph import (
    cluster_niches,
    grid_niches,
    grid_patches,
    kd_parts,
    label_niches,
    neighborhood_niches,
    niche_positions,
    sub_slices,
)
from spatiagraph.testing import requires


def uniform(num, seed=0, side=1000.0):
    return side * np.random.default_rng(seed).random((num, 2))


def hexagonal(rows, cols, pitch=100.0):
    col, row = np.meshgrid(np.arange(cols), np.arange(rows))
    x, y = (col + 0.5 * (row % 2)) * pitch, row * pitch * np.sqrt(0.75)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def rotated(pos, angle, mirror=False):
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return pos @ turn * ([1, -1] if mirror else 1)


def groups(part):
    """The partition alone: which cells are together, whatever the numbers."""
    return {frozenset((part == p).nonzero().flatten().tolist()) for p in part.unique()}


def members(edge_index):
    """Members of each niche."""
    niches = [set() for _ in range(edge_index.sparse_size(1))]
    for cell, niche in edge_index.t().tolist():
        niches[niche].add(cell)
    return niches


# grid_niches -------------------------------------------------------------------------------------


def test_grid_niche_is_the_same_tissue_on_a_platform_with_other_pixels():
    """SPATIA fact 3."""
    assert 256 * 0.2125 == pytest.approx(54.4)
    assert 1024 * 0.2125 == pytest.approx(217.6)
    pos = uniform(500, side=600)
    niche = grid_niches(pos, origin_um=(0, 0))
    for mpp in (0.2125, 0.12):
        pixel = pos / mpp
        row, col = (pixel[:, ::-1] // (54.4 / mpp)).astype(int).T
        assert groups(niche) == groups(torch.from_numpy(row * 1000 + col))


def test_every_cell_is_in_one_grid_niche_and_counts_add_up():
    """SPATIA fact 4."""
    pos, counts = uniform(800), torch.from_numpy(np.random.default_rng(1).poisson(2, (800, 7)))
    niche = grid_niches(pos)
    assert niche.shape == (800,)
    assert niche.unique().tolist() == list(range(int(niche.max()) + 1))
    summed = torch.zeros(int(niche.max()) + 1, 7, dtype=torch.long).index_add_(0, niche, counts)
    assert torch.equal(summed.sum(0), counts.sum(0))


@pytest.mark.parametrize("pos", [uniform(300), hexagonal(9, 9, 54.4)], ids=["cells", "lattice"])
def test_moving_the_slide_changes_no_grid_niche(pos):
    """SPATIA fact 17 (positions)."""
    assert torch.equal(grid_niches(pos + [1234.5, -77.7]), grid_niches(pos))


def test_grid_niches_of_two_slides_stay_apart():
    pos = np.concatenate([uniform(50), uniform(50)])
    slide = np.repeat(["b", "a"], 50)
    niche = grid_niches(pos, 300, slide=slide)
    assert not set(niche[:50].tolist()) & set(niche[50:].tolist())
    assert groups(niche[:50]) == groups(niche[50:])


def test_grid_patches_tell_row_column_and_centre():
    patches = grid_patches([[5, 5], [25, 5], [26, 6], [5, 15]], 10, origin_um=(0, 0))
    assert patches.niche.tolist() == [0, 1, 1, 2]
    assert patches.row.tolist() == [0, 0, 1]
    assert patches.col.tolist() == [0, 2, 0]
    assert patches.center.tolist() == [[5, 5], [25, 5], [5, 15]]


def test_grid_niches_refuse_an_empty_patch_size():
    with pytest.raises(ValueError, match="'size_um' above 0, got 0"):
        grid_niches(uniform(5), 0)


# neighborhood_niches -----------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.0, 0.2, np.pi / 6, np.pi / 4, 1.2])
def test_neighborhood_of_an_inner_spot_has_seven_members(angle):
    """ST-Align fact A6."""
    pos = rotated(hexagonal(7, 7), angle)
    inner = np.array([row * 7 + col for row in range(2, 5) for col in range(2, 5)])
    for rule, size in (
        ({}, 7),
        ({"mode": "box", "box_um": 200.0}, 7),
        ({"mode": "box", "box_um": 100.0}, 1),
    ):
        sizes = np.array([len(niche) for niche in members(neighborhood_niches(pos, **rule))])
        assert (sizes[inner] == size).all()
        if size == 7:
            assert (sizes[[0, 6, 42, 48]] < 7).all()


def test_niche_mean_is_one_step_of_mean_aggregation():
    """ST-Align fact A6."""
    pos, x = hexagonal(6, 6), torch.rand(36, 5, dtype=torch.float64)
    cell, niche = neighborhood_niches(pos).as_tensor()
    size = torch.bincount(niche)
    mean = torch.zeros_like(x).index_add_(0, niche, x[cell]) / size[:, None]
    distance = np.linalg.norm(pos[:, None] - pos[None], axis=-1)
    dense = torch.from_numpy((distance < 150).astype(float))
    assert_close(mean, dense @ x / dense.sum(1, keepdim=True))
    constant = torch.zeros(36, dtype=x.dtype).index_add_(0, niche, torch.full_like(x[cell, 0], 3.0))
    assert_close(constant / size, torch.full((36,), 3.0, dtype=x.dtype))


def test_neighborhood_of_an_isolated_spot_is_the_spot():
    """ST-Align fact A6."""
    pos = np.concatenate([hexagonal(5, 5), [[5000.0, 5000.0]]])
    assert members(neighborhood_niches(pos))[25] == {25}
    assert members(neighborhood_niches([[3.0, 4.0]])) == [{0}]


@pytest.mark.parametrize("pos", [uniform(200), hexagonal(7, 7)], ids=["cells", "lattice"])
@pytest.mark.parametrize("mirror", [False, True])
def test_moving_the_slide_changes_no_neighborhood(pos, mirror):
    """ST-Align fact A7."""
    moved = rotated(pos, 0.7, mirror) + [300.0, -9000.0]
    assert torch.equal(neighborhood_niches(moved), neighborhood_niches(pos))


@pytest.mark.parametrize("k", [2, 6, 13])
@pytest.mark.parametrize(
    "moved",
    [
        lambda pos: rotated(pos, 0.7),
        lambda pos: pos @ [[0, 1], [-1, 0]],
        lambda pos: pos + [1234.567, -9000.1],
        lambda pos: pos * [-1, 1],
        lambda pos: rotated(0.37 * pos, 0.2, mirror=True) + 1e5 / 3,
    ],
    ids=["turn", "quarter", "shift", "mirror", "all"],
)
def test_moving_a_square_lattice_changes_no_neighborhood(moved, k):
    """ST-Align fact A7, where the last neighbour is one of several that are equally far."""
    pos = 100 * lattice(12)
    found = neighborhood_niches(pos, k, max_ratio=None)
    assert torch.equal(neighborhood_niches(moved(pos), k, max_ratio=None), found)
    assert torch.equal(neighborhood_niches(moved(pos), k), neighborhood_niches(pos, k))
    distance = np.linalg.norm(pos[:, None] - pos[None], axis=-1).round(6)
    order = np.argsort(distance, axis=1, kind="stable")  # of equal ones the lower rows
    for i, niche in enumerate(members(found)):
        assert niche == {i, *order[i][order[i] != i][:k]}


@pytest.mark.parametrize("k", [1, 6, 30])
def test_neighborhoods_of_points_without_ties_are_the_nearest(k):
    pos = uniform(300)
    pos[250:280] = pos[7]  # and a pile, of which the lower rows are taken
    found = members(neighborhood_niches(pos, k, max_ratio=None))
    distance = np.linalg.norm(pos[:, None] - pos[None], axis=-1)
    for i, row in enumerate(np.argsort(distance, axis=1, kind="stable")):
        assert found[i] == {i, *row[row != i][:k]}


def test_neighborhoods_respect_limits_and_slides():
    pos = [[0, 0], [1, 0], [3, 0], [0, 0], [1, 0]]
    slide = [0, 0, 0, 1, 1]
    assert members(neighborhood_niches(pos, 2, max_ratio=None, slide=slide)) == [
        {0, 1, 2},
        {0, 1, 2},
        {0, 1, 2},
        {3, 4},
        {3, 4},
    ]
    assert members(neighborhood_niches(pos, 2, slide=slide))[2] == {2}
    assert members(neighborhood_niches(pos, 2, max_ratio=None, max_um=2, slide=slide))[:3] == [
        {0, 1},
        {0, 1, 2},
        {1, 2},
    ]


def test_neighborhood_of_a_radius_holds_all_cells_within_it():
    pos = uniform(150)
    found = neighborhood_niches(pos, mode="radius", radius_um=27.0)
    found.validate()
    near = np.linalg.norm(pos[:, None] - pos[None], axis=-1) <= 27.0
    assert members(found) == [set(np.flatnonzero(row)) for row in near]
    assert members(neighborhood_niches([[3.0, 4.0]], mode="radius")) == [{0}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "'k' of at least 1"),
        ({"max_ratio": 0}, "'max_ratio' above 0"),
        ({"max_um": -1}, "'max_um' above 0"),
        ({"mode": "radius", "radius_um": 0}, "'radius_um' above 0"),
        ({"mode": "disc"}, '\'mode\' "knn", "box" or "radius", got \'disc\''),
    ],
)
def test_neighborhoods_refuse_unusable_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        neighborhood_niches(uniform(9), **arguments)


# kd_parts, sub_slices ----------------------------------------------------------------------------


def lattice(side):
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)


def test_sub_slices_of_a_64_by_64_grid_have_the_published_sizes():
    """SToFM fact A12."""
    sizes = torch.bincount(sub_slices(lattice(64), 1000, mode="grid"))
    assert sorted(sizes.tolist(), reverse=True) == [841, 812, 812, 784, 203, 203, 196, 196, 49]


@pytest.mark.parametrize("pos", [lattice(64), uniform(5003)], ids=["lattice", "cells"])
@pytest.mark.parametrize("size", [1000, 333])
def test_kd_parts_hold_between_half_and_all_of_the_limit(pos, size):
    """SToFM fact A12."""
    sizes = torch.bincount(kd_parts(pos, size))
    assert sizes.sum() == len(pos)
    assert sizes.min() >= size // 2
    assert sizes.max() <= size


@pytest.mark.parametrize("mode", ["kd", "grid"])
def test_small_slides_are_one_part_and_lines_and_piles_can_be_cut(mode):
    """SToFM fact A12."""
    assert sub_slices(uniform(1000), 1000, mode=mode).unique().tolist() == [0]
    line = np.stack([np.arange(2500.0), np.zeros(2500)], axis=1)
    for pos in (line, np.zeros((2500, 2))):
        part = sub_slices(pos, 1000, mode=mode)
        assert part.shape == (2500,)
        assert torch.bincount(part).max() < 2000


@pytest.mark.parametrize("width", [0.0, 1e-3, 0.5])
def test_grid_sub_slices_of_a_line_hold_about_the_limit(width):
    rng = np.random.default_rng(0)
    line = np.stack([rng.uniform(0, 3000, 3000), width * rng.random(3000)], axis=1)
    sizes = torch.bincount(sub_slices(line, 1000, mode="grid"))
    assert 3 <= len(sizes) <= 6
    assert sizes.max() < 2000


def test_grid_sub_slices_of_an_elongated_section_are_those_of_the_published_rule():
    pos = uniform(1500) / uniform(1500).max(0) * [300.0, 100.0]
    low, extent = pos.min(0), np.ptp(pos, 0)
    side = np.sqrt(extent.prod() / 2)
    _, expected = np.unique(np.floor((pos - low) / side), axis=0, return_counts=True)
    assert sorted(torch.bincount(sub_slices(pos, 1000, mode="grid")).tolist()) == sorted(expected)


def test_grid_sub_slices_chop_a_crowded_tile_in_order_of_rows():
    pos = np.concatenate([np.zeros((50, 2)), [[10.0, 10.0]]])
    part = sub_slices(pos, 10, mode="grid")
    assert torch.bincount(part).tolist() == [10] * 5 + [1]
    assert (part[:50].diff() >= 0).all()


@pytest.mark.parametrize("mirror", [False, True])
def test_kd_parts_turn_with_the_slide(mirror):
    pos = uniform(1500) * [1.0, 0.6]
    expected = groups(kd_parts(pos, 100))
    assert groups(kd_parts(rotated(pos, 1.0, mirror) + 400.0, 100)) == expected


@pytest.mark.parametrize("pos", [uniform(900), lattice(30)], ids=["cells", "lattice"])
def test_kd_parts_do_not_depend_on_the_order_of_cells(pos):
    perm = torch.from_numpy(np.random.default_rng(3).permutation(900))
    assert groups(kd_parts(pos, 100)) == {
        frozenset(perm[list(group)].tolist()) for group in groups(kd_parts(pos[perm], 100))
    }


def test_kd_parts_of_two_slides_stay_apart():
    slide = torch.arange(400) % 2
    part = kd_parts(np.repeat(uniform(200), 2, axis=0), 50, slide=slide)
    assert not set(part[slide == 0].tolist()) & set(part[slide == 1].tolist())


def test_partitions_refuse_unusable_arguments():
    for call in (kd_parts, lambda pos, size: sub_slices(pos, size, mode="grid")):
        with pytest.raises(ValueError, match="'max_cells' of at least 1, got 0"):
            call(uniform(5), 0)
    with pytest.raises(ValueError, match="got 'hexagon'"):
        sub_slices(uniform(5), mode="hexagon")


# Labels, clusters, positions ---------------------------------------------------------------------


def test_labels_are_numbered_in_order_and_missing_ones_are_minus_one():
    assert label_niches(["b", "a", None, "b"]).tolist() == [1, 0, -1, 1]
    assert label_niches([7, -1, 3, 7]).tolist() == [1, -1, 0, 1]
    assert label_niches(torch.tensor([5, 5, 2])).tolist() == [1, 1, 0]
    series = pd.Series(
        pd.Categorical(["L2", "L1", np.nan], categories=["WM", "L2", "L1"]), index=[9, 8, 7]
    )
    assert label_niches(series).tolist() == [0, 1, -1]


@requires("igraph", "leidenalg")
def test_leiden_finds_separate_clouds_without_being_told_their_number():
    z = np.concatenate([uniform(40, s, 1.0) + 100 * s for s in range(3)])
    found = cluster_niches(z, resolution=0.05)
    assert groups(found) == {frozenset(range(s, s + 40)) for s in (0, 40, 80)}
    assert torch.equal(found, cluster_niches(z, resolution=0.05))


def test_kmeans_finds_separate_clouds():
    z = torch.from_numpy(np.concatenate([uniform(40, s, 1.0) + 100 * s for s in range(3)]))
    assert groups(cluster_niches(z, 3)) == {frozenset(range(s, s + 40)) for s in (0, 40, 80)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either 'num_clusters'"),
        ({"num_clusters": 2, "resolution": 1.0}, "either 'num_clusters'"),
        ({"num_clusters": 9}, r"between 1 and 5 \(cells\), got 9"),
    ],
)
def test_cluster_niches_refuse_unusable_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        cluster_niches(uniform(5), **arguments)


def test_niche_positions_are_means_of_members():
    pos = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 6.0], [9.0, 9.0]])
    niche = torch.tensor([0, 0, 2, -1])
    found = niche_positions(pos, niche)
    assert found.dtype == pos.dtype
    assert_close(found[[0, 2]], torch.tensor([[2.0, 0.0], [4.0, 6.0]]))
    assert found[1].isnan().all()
    around = neighborhood_niches(pos, 1, max_ratio=None)
    assert_close(niche_positions(pos, around)[0], torch.tensor([2.0, 0.0]))
    with pytest.raises(ValueError, match="each of 4 cells, got 3"):
        niche_positions(pos, niche[:3])
