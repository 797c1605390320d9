import pytest
import torch
from torch.testing import assert_close

from spatiagraph.data import TileLoader, make_tissue, to_data
from spatiagraph.data.loader import in_hilbert_order
from spatiagraph.graph import kd_parts

SLIDE = make_tissue(400, num_genes=30, image="dapi", seed=0)
DATA = to_data(SLIDE, tissue=lambda pos: kd_parts(pos, 50), image=(16.0, 8), sparse_counts=True)


def test_every_cell_is_core_once():
    loader = TileLoader([DATA], tile_size=100, num_hops=2)
    rows = torch.cat([tile.cell_index[tile.core] for tile in loader])
    assert rows.sort().values.tolist() == list(range(400))
    assert all(tile.core.sum() <= 100 for tile in loader)


def test_tiles_carry_the_features_and_edges_of_their_cells():
    for tile in TileLoader([DATA], tile_size=100, num_hops=1):
        rows = tile.cell_index
        assert_close(tile.x, DATA.x.to_dense()[rows])
        assert_close(tile.pos, DATA.pos[rows])
        assert_close(tile.image, DATA.image[rows])
        source, target = tile.edge_index.as_tensor()
        degree = torch.bincount(target, minlength=tile.num_nodes)
        assert (degree[tile.core] == 8).all()
        member, niche = tile.niche_index.as_tensor()
        assert (torch.bincount(niche, minlength=tile.num_niches) == 16).all()
        whole = set(map(tuple, DATA.edge_index.as_tensor().t().tolist()))
        assert set(zip(rows[source].tolist(), rows[target].tolist(), strict=True)) <= whole


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[int]:
        loader = TileLoader([DATA], 100, shuffle=True, seed=seed)
        loader.sampler.set_epoch(epoch)
        return [int(tile.cell_index[0]) for tile in loader]

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert sorted(order(0, 3)) == sorted(order(1, 0))


def test_tiles_never_mix_slides():
    other = to_data(make_tissue(90, num_genes=30, image=None, seed=1), sparse_counts=True)
    tiles = list(TileLoader([DATA, other], tile_size=1000))
    assert [tile.slide for tile in tiles] == [0, 1]
    assert [tile.num_nodes for tile in tiles] == [400, 90]


def test_loader_leaves_the_slide_and_the_global_random_state_alone():
    before, state = DATA.x.values().clone(), torch.get_rng_state()
    for tile in TileLoader([DATA], 100, shuffle=True):
        tile.x.zero_()
    assert_close(DATA.x.values(), before)
    assert_close(torch.get_rng_state(), state)


def test_tile_size_must_be_positive():
    with pytest.raises(ValueError, match="'tile_size' to be positive, got 0"):
        TileLoader([DATA], 0)


def test_hilbert_order_moves_cells_and_nothing_else():
    moved = in_hilbert_order(DATA)
    rows = moved.cell_index
    assert rows.tolist() != list(range(400))
    assert_close(moved.x.to_dense(), DATA.x.to_dense()[rows])
    assert_close(moved.pos, DATA.pos[rows])

    def edges(data, key, targets):
        source, target = data[key].as_tensor()
        return set(zip(data.cell_index[source].tolist(), targets[target].tolist(), strict=True))

    assert edges(moved, "edge_index", rows) == edges(DATA, "edge_index", DATA.cell_index)
    niches = torch.arange(DATA.num_niches)
    assert edges(moved, "niche_index", niches) == edges(DATA, "niche_index", niches)
    assert_close(moved.niche, DATA.niche[rows])
    step = (moved.pos[1:] - moved.pos[:-1]).norm(dim=1).mean()
    assert step < 0.5 * (DATA.pos[1:] - DATA.pos[:-1]).norm(dim=1).mean()
