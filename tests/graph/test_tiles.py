"""Tiles with context give what the whole slide gives; with less, they do not."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from spatiagraph.graph import (
    grid_niches,
    k_hop,
    kd_parts,
    knn_graph,
    neighborhood_niches,
    tile_context,
    tissue_tiles,
)
from spatiagraph.graph.tiles import LevelEdges, tiles

NUM, HOPS = 400, 2


def cells(num=NUM, seed=0):
    return 500 * np.random.default_rng(seed).random((num, 2))


def pooled(values, group, num_groups):
    keep = group >= 0
    zeros = values.new_zeros(num_groups, values.size(1))
    return zeros.index_add_(0, group[keep], values[keep])


def heard(values, group):
    """What each row hears from its group; nothing without one."""
    padded = torch.cat([values, values.new_zeros(1, values.size(1))])
    return padded[torch.where(group < 0, len(values), group)]


class Model:
    """Linear messages between cells, pooling to niches and tissues, and back: order matters."""

    def __init__(self, channels=3, hops=HOPS, seed=0):
        generator = torch.Generator().manual_seed(seed)
        shape = (4, channels, channels)
        self.weight = torch.randn(shape, generator=generator, dtype=torch.float64)
        self.hops = hops

    def __call__(self, x, edges, member, own, tissue, num_niches, num_tissues):
        for _ in range(self.hops):
            message = torch.zeros_like(x).index_add_(0, edges[1], x[edges[0]])
            x = x + message @ self.weight[0]
        h_niche = x.new_zeros(num_niches, x.size(1)).index_add_(0, member[1], x[member[0]])
        h_tissue = pooled(h_niche @ self.weight[1], tissue, num_tissues)
        h_niche = h_niche @ self.weight[2] + heard(h_tissue, tissue)
        return x + heard(h_niche, own) @ self.weight[3]


def on_tile(model, x, edges, member, own, tissue, context):
    """Run the model with only the cells and niches of a context."""
    cell = torch.full((len(x),), -1)
    cell[context.nodes] = torch.arange(len(context.nodes))
    niche = torch.full((len(tissue) + 1,), -1)  # the last stands for "none"
    niche[context.groups[0]] = torch.arange(len(context.groups[0]))
    edges, member = cell[edges], torch.stack([cell[member[0]], niche[member[1]]])
    out = model(
        x[context.nodes],
        edges[:, (edges >= 0).all(0)],
        member[:, (member >= 0).all(0)],
        niche[own[context.nodes]],
        tissue[context.groups[0]],
        len(context.groups[0]),
        int(tissue.max()) + 1,
    )
    return out[context.core_mask]


def hierarchy(kind, pos):
    """Own niche of each cell, members → niches, tissue of each niche."""
    if kind == "grid":
        own = grid_niches(pos, 60)
        own[::17] = -1
        index = None
    else:
        own, index = torch.arange(len(pos)), neighborhood_niches(pos, 5)
    num_niches = int(own.max()) + 1
    tissue = torch.arange(num_niches) * 6 // num_niches
    tissue[::29] = -1
    member = (
        torch.stack([(own >= 0).nonzero().flatten(), own[own >= 0]])
        if index is None
        else index.as_tensor()
    )
    return own, index, member, tissue


@pytest.mark.parametrize("with_tissue", [True, False])
@pytest.mark.parametrize("kind", ["grid", "neighborhood"])
def test_tiles_with_context_equal_the_whole_slide(kind, with_tissue):
    pos = cells()
    edge_index, x = knn_graph(pos, 4), torch.rand(NUM, 3, dtype=torch.float64)
    own, index, member, tissue = hierarchy(kind, pos)
    if not with_tissue:
        tissue = torch.full_like(tissue, -1)
    edges, model = edge_index.as_tensor(), Model()
    whole = model(x, edges, member, own, tissue, len(tissue), max(int(tissue.max()) + 1, 0))
    for core in tiles(pos, 60):
        context = tile_context(
            core,
            edge_index,
            HOPS,
            [LevelEdges(own, index), *([LevelEdges(tissue)] if with_tissue else [])],
        )
        assert torch.equal(context.nodes[context.core_mask], core)
        assert_close(on_tile(model, x, edges, member, own, tissue, context), whole[core])


def test_every_cell_of_a_context_matters():
    pos = cells(150)
    edge_index, own = knn_graph(pos, 3), grid_niches(pos, 120)
    tissue = torch.arange(int(own.max()) + 1) % 4
    core = tiles(pos, 10)[0]
    context = tile_context(core, edge_index, 1, [LevelEdges(own), LevelEdges(tissue)])
    x = torch.rand(150, 3, dtype=torch.float64, requires_grad=True)
    member = torch.stack([torch.arange(150), own])
    Model(hops=1)(x, edge_index.as_tensor(), member, own, tissue, len(tissue), 4)[
        core
    ].sum().backward()
    assert x.grad.abs().sum(1).nonzero().flatten().tolist() == context.nodes.tolist()
    assert len(context.nodes) < 150


def test_context_without_niches_is_the_halo():
    pos = cells()
    edge_index, core = knn_graph(pos, 4), torch.tensor([5, 9])
    context = tile_context(core, edge_index, 2)
    assert torch.equal(context.nodes, k_hop(edge_index, core, 2))
    assert sum(map(len, context.groups)) == 0


def test_context_of_cells_without_niche_is_their_halo():
    edge_index, own = torch.tensor([[0, 1], [1, 2]]), torch.tensor([-1, 0, -1])
    context = tile_context(
        torch.tensor([2]), edge_index, 1, [LevelEdges(own), LevelEdges(torch.tensor([0]))]
    )
    assert context.nodes.tolist() == [1, 2]
    assert sum(map(len, context.groups)) == 0


@pytest.mark.parametrize("num_hops", [0, 1, 2, 5])
def test_k_hop_equals_powers_of_the_adjacency(num_hops):
    pos = cells(120)
    edge_index = knn_graph(pos, 3)
    step = torch.eye(120)
    step[edge_index[1], edge_index[0]] = 1  # target hears source
    reach = torch.linalg.matrix_power(step, num_hops) > 0
    nodes = torch.tensor([3, 77])
    expected = reach[nodes].any(0).nonzero().flatten()
    assert torch.equal(k_hop(edge_index, nodes, num_hops), expected)
    shuffled = edge_index.as_tensor()[:, torch.randperm(edge_index.size(1))]
    assert torch.equal(k_hop(shuffled, nodes, num_hops), expected)


def test_k_hop_follows_messages_backwards_only():
    chain = torch.tensor([[0, 1, 2], [1, 2, 3]])
    assert k_hop(chain, torch.tensor([1]), 3).tolist() == [0, 1]
    assert k_hop(chain, torch.tensor([0]), 3).tolist() == [0]
    assert k_hop(torch.tensor([[7], [1]]), torch.tensor([1]), 2).tolist() == [1, 7]


def test_tiles_hold_every_cell_once_and_no_two_slides():
    slide = torch.arange(NUM) % 2
    found = tiles(cells(), 50, slide=slide)
    assert torch.cat(found).sort().values.tolist() == list(range(NUM))
    assert all(len(tile) <= 50 and len(slide[tile].unique()) == 1 for tile in found)


def test_tissue_tiles_keep_regions_whole():
    tissue = kd_parts(cells(), 30)
    tissue[:3] = -1
    found = tissue_tiles(tissue, 100)
    assert torch.cat(found).sort().values.tolist() == list(range(NUM))
    assert all(len(tile) <= 100 for tile in found)
    tile_of = torch.empty(NUM, dtype=torch.long)
    for number, tile in enumerate(found):
        tile_of[tile] = number
    assert all(
        len(tile_of[tissue == region].unique()) == 1 for region in range(int(tissue.max()) + 1)
    )


def test_a_region_larger_than_a_tile_is_its_own():
    found = tissue_tiles(torch.tensor([0, 1, 1, 1, 2, -1]), 2)
    assert [tile.tolist() for tile in found] == [[0], [1, 2, 3], [4, 5]]
    assert tissue_tiles(torch.empty(0, dtype=torch.long), 2) == []
    with pytest.raises(ValueError, match="'tile_size' of at least 1, got 0"):
        tissue_tiles(torch.tensor([0]), 0)
