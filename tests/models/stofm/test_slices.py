"""How SToFM cuts slides: facts about positions, parts, halos and virtual cells."""

import math
import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.graph.hierarchy import cluster_niches
from spatiagraph.models import SubSlices, VirtualCells

TURN = torch.tensor([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]]).double()


def cells(num=1200, seed=0):
    """Positions and vectors of five domains side by side."""
    rng = np.random.default_rng(seed)
    pos = rng.uniform(0, [600, 400], (num, 2))
    domain = (pos[:, 0] // 120).astype(int)
    x = np.eye(8)[domain] + 0.2 * rng.normal(size=(num, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return torch.from_numpy(pos), torch.from_numpy(x).float()


def test_positions_have_no_unit_and_the_factor_brings_it_back():
    """SToFM fact A11."""
    pos, _ = cells()
    place, factor = SubSlices().place(pos)
    assert_close(
        torch.pdist(place.double()[:50]) / factor, torch.pdist(pos[:50]), rtol=1e-4, atol=0
    )
    again, _ = SubSlices().place(3 * pos @ TURN.T + 1e4)
    assert_close(again, (place.double() @ TURN.T).float(), atol=1e-3, rtol=0)
    square = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1]]).double()
    half = torch.tensor([[1.0, -1], [1, 1]]).double() / math.sqrt(2)
    sides = {}
    for norm in ("rms", "bbox"):
        sides[norm] = [
            (SubSlices(norm=norm).place(p)[0][1] - SubSlices(norm=norm).place(p)[0][0])
            .norm()
            .item()
            for p in (square, square @ half.T)
        ]
    assert sides["rms"] == pytest.approx([40.8248, 40.8248], abs=1e-3)
    assert sides["bbox"] == pytest.approx([70.7107, 50.0], abs=1e-3)


def test_every_cell_is_in_one_part_of_half_to_all_the_size():
    """SToFM fact A12."""
    grid = torch.cartesian_prod(*[torch.arange(64.0)] * 2).double()
    sizes = torch.bincount(SubSlices(partition="grid").parts(grid)).tolist()
    assert sorted(sizes) == sorted([841, 812, 812, 784, 203, 203, 196, 196, 49])
    for partition in ("kd", "overlap"):
        sizes = torch.bincount(SubSlices(partition=partition).parts(grid)).tolist()
        assert sum(sizes) == 4096
        assert min(sizes) >= 500
        assert max(sizes) <= 1000
    assert SubSlices().parts(grid[:900]).unique().tolist() == [0]
    line = torch.stack([torch.arange(3000.0), torch.zeros(3000)], 1).double()
    for partition in ("kd", "grid"):
        parts = SubSlices(partition=partition).parts(line)
        assert len(parts) == 3000
        assert int(parts.max()) >= 2


@pytest.mark.parametrize("halo", [20, 150])
def test_a_halo_holds_the_nearest_cells_outside(halo):
    pos, _ = cells(800)
    rule = SubSlices(partition="overlap", max_cells=300, halo=halo)
    part = rule.parts(pos)
    halos = rule.context(pos, part)
    assert [len(rows) for rows in halos] == [halo] * (int(part.max()) + 1)
    for number, rows in enumerate(halos):
        away = torch.cdist(pos, pos[part == number]).amin(1)
        away[part == number] = torch.inf
        assert sorted(rows.tolist()) == sorted(away.topk(halo, largest=False).indices.tolist())
    assert [len(rows) for rows in SubSlices(max_cells=300).context(pos, part)] == [0] * len(halos)
    alone = torch.zeros(800, dtype=torch.long)
    assert [len(rows) for rows in rule.context(pos, alone)] == [0]


def test_a_halo_reaches_over_a_gap():
    """Two fields of view 900 µm apart: the cells nearest to any are all of its own field."""
    pos, _ = cells(600)
    pos = pos[:, :2] / pos.max() * 100
    pos[300:, 0] += 1000
    rule = SubSlices(partition="overlap", max_cells=300, halo=20)
    part = (torch.arange(600) >= 300).long()
    for number, rows in enumerate(rule.context(pos, part)):
        away = torch.cdist(pos, pos[part == number]).amin(1)
        away[part == number] = torch.inf
        assert sorted(rows.tolist()) == sorted(away.topk(20, largest=False).indices.tolist())
    few = SubSlices(partition="overlap", max_cells=300, halo=400).context(pos, part)
    assert [len(rows) for rows in few] == [300, 300]


@pytest.mark.parametrize("method", ["leiden", "kmeans"])
def test_virtual_cells_are_means_of_their_cells(method):
    """SToFM fact A13."""
    pos, x = cells()
    place, _ = SubSlices().place(pos)
    found = VirtualCells(method=method)(x, place)
    assert found.method == method
    num = len(found.x)
    assert 5 <= num <= 200
    assert found.own.unique().tolist() == list(range(num))
    size = torch.bincount(found.own).double()
    centroid = (size.unsqueeze(1) * found.pos).sum(0) / size.sum()
    assert_close(centroid, place.double().mean(0), atol=1e-4, rtol=0)
    assert_close(found.x[2], x[found.own == 2].mean(0), atol=1e-5, rtol=1e-4)
    assert bool((found.x.norm(dim=1) <= 1 + 1e-5).all())


def test_one_cluster_is_the_mean_of_the_slide_and_clusters_are_capped():
    """SToFM fact A13."""
    pos, x = cells(300)
    one = VirtualCells(method="kmeans", max_clusters=1)(x, pos)
    assert_close(one.x[0], x.mean(0), atol=1e-5, rtol=1e-4)
    many = VirtualCells(resolution=200.0, max_clusters=12)(x, pos)
    assert 1 < len(many.x) <= 12
    for num in (1, 2):
        few = VirtualCells()(x[:num], pos[:num])
        assert_close(few.pos[0], pos[:num].mean(0).float())
    same = VirtualCells()(x[:1].expand(50, -1), pos[:1].expand(50, -1).clone())
    assert bool(same.x.isfinite().all())


def test_virtual_cells_do_not_depend_on_how_the_slide_lies_or_is_stored():
    """SToFM facts A1 and A17."""
    pos, x = cells()
    place = SubSlices().place(pos)[0]
    found = VirtualCells()(x, place)
    turned = VirtualCells()(x, SubSlices().place(pos @ TURN.T + 50)[0])
    assert torch.equal(turned.own, found.own)
    perm = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    moved = VirtualCells()(x[perm], place[perm])
    assert torch.equal(moved.own, found.own[perm])
    assert_close(moved.x, found.x)


def test_the_published_sum_of_positions_and_components_is_there():
    pos, x = cells(400)
    published = VirtualCells(features="sum2d")(x, pos)
    assert len(published.x) > 1
    assert not torch.equal(published.own, VirtualCells()(x, pos).own)
    at, z = (v.double().numpy() - v.double().numpy().mean(0) for v in (pos, x))
    z = z @ np.linalg.svd(z, full_matrices=False)[2][:2].T
    parts = [v / np.linalg.norm(v, axis=1).max() for v in (at, z)]
    order = np.argsort(np.linalg.norm(at, axis=1), kind="stable")
    for sign in ((1, 1), (1, -1), (-1, 1), (-1, -1)):  # of components
        values = (0.2 * parts[0] + 0.8 * parts[1] * sign)[order]
        own = cluster_niches(values, resolution=1.0, num_neighbors=10, seed=0)
        if torch.equal(own, published.own[order]):
            break
    else:
        raise AssertionError("no clusters of the published sum")


def test_without_leiden_k_means_takes_its_place_and_says_so(monkeypatch):
    pos, x = cells(400)
    monkeypatch.setitem(sys.modules, "leidenalg", None)
    with pytest.warns(UserWarning, match=r"spatiagraph\[cluster\].*k-means instead"):
        found = VirtualCells()(x, pos)
    assert found.method == "kmeans"
    assert len(found.x) == 20


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        (SubSlices, {"partition": "tiles"}, "overlap"),
        (SubSlices, {"norm": "box"}, "rms"),
        (SubSlices, {"max_cells": 0}, "max_cells"),
        (VirtualCells, {"method": "louvain"}, "kmeans"),
        (VirtualCells, {"alpha": 1.5}, "alpha"),
        (VirtualCells, {"features": "sum"}, "concat"),
    ],
)
def test_wrong_rules_are_refused(rule, options, message):
    with pytest.raises(ValueError, match=message):
        rule(**options)
