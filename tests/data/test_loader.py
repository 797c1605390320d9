import pytest
import tifffile
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from spatiagraph.data import (
    GenePanel,
    LabelSet,
    Slide,
    SlideImage,
    TileLoader,
    make_tissue,
    to_data,
)
from spatiagraph.data.image import HELD
from spatiagraph.data.loader import HierarchicalLoader, cut_tile, in_hilbert_order
from spatiagraph.data.recipe import Crop, Grid, InGroups, Neighborhoods, Parts, Ranks, Recipe

SLIDE = make_tissue(400, num_genes=30, image="dapi", seed=0)
PANEL = GenePanel(SLIDE.symbols)
DATA = Recipe(PANEL, levels=(Neighborhoods(15), Parts(50)), crops=(Crop(16.0, 8),))(SLIDE)


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
        assert_close(tile.image, DATA.take("cell", rows)["image"])
        source, target = tile.edge_index.as_tensor()
        degree = torch.bincount(target, minlength=tile.num_nodes)
        assert (degree[tile.core] == 8).all()
        member, niche = tile.niche_index.as_tensor()
        assert (torch.bincount(niche, minlength=tile.num_items("niche")) == 16).all()
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
    other = Recipe(PANEL)(make_tissue(90, num_genes=30, image=None, seed=1))
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
    niches = torch.arange(DATA.num_items("niche"))
    assert edges(moved, "niche_index", niches) == edges(DATA, "niche_index", niches)
    assert_close(moved.niche, DATA.niche[rows])
    step = (moved.pos[1:] - moved.pos[:-1]).norm(dim=1).mean()
    assert step < 0.5 * (DATA.pos[1:] - DATA.pos[:-1]).norm(dim=1).mean()


def with_all_features():
    slide = make_tissue(300, num_genes=30, image="dapi", seed=2)
    recipe = Recipe(
        GenePanel(slide.symbols),
        graph=InGroups(),
        levels=(Grid(25.0), Grid(50.0)),
        crops=(Crop(16.0, 8), Crop(25.0, 8, of="niche"), Crop(50.0, 8, of="tissue")),
        labels=LabelSet.from_slides([slide], ["cell_type", "niche"]),
    )
    data = recipe(slide)
    data.put("cell", z=torch.randn(300, 4, generator=torch.Generator().manual_seed(0)))
    return data


SPARSE = with_all_features()
FULL = SPARSE.dense()


def assert_same_features(part, whole):
    """Cells, niches and regions of a part have the features they have on the whole slide."""
    rows = part.cell_index
    for key in ("image", "image_mask", "window_um", "labels", "z", "depth", "pos"):
        assert_close(part[key], whole[key][rows])
    assert_close(part.x, whole.x[rows])
    own = part.niche >= 0
    niches, regions = whole.niche[rows[own]], whole.group_of_cell("tissue")[rows[own]]
    for key in ("niche_image", "niche_image_mask", "niche_pos"):
        assert part[key].size(0) == part.num_items("niche")
        assert_close(part[key][part.niche[own]], whole[key][niches])
    for key in ("tissue_image", "tissue_image_mask", "tissue_pos"):
        assert part[key].size(0) == part.num_items("tissue")
        assert_close(part[key][part.group_of_cell("tissue")[own]], whole[key][regions])


def test_tiles_carry_crops_labels_and_features_of_every_level():
    tiles = list(TileLoader([SPARSE], tile_size=60, num_hops=1))
    assert len(tiles) > 3
    for tile in tiles:
        assert_same_features(tile, FULL)


def test_hilbert_order_moves_the_features_of_cells_and_of_nothing_else():
    moved = in_hilbert_order(SPARSE)
    assert moved.cell_index.tolist() != list(range(300))
    moved = moved.dense()
    assert_same_features(moved, FULL)
    assert_close(moved.niche_image, FULL.niche_image)
    assert_close(moved.tissue_image, FULL.tissue_image)


def ragged_rows(tokens, rows=None):
    """Tokens of each row, as a list of tensors."""
    cells = tokens.values().split(tokens.crow_indices().diff().tolist())
    return [cells[i] for i in (range(len(cells)) if rows is None else rows.tolist())]


def test_tiles_need_no_levels_and_carry_tokens_in_place_of_counts():
    data = Recipe(PANEL, levels=(), tokens=Ranks(6))(SLIDE)
    tiles = list(TileLoader([data], tile_size=150, num_hops=1))
    assert [int(tile.core.sum()) for tile in tiles] == [150, 150, 100]
    whole = data.dense().gene_ids
    for tile in tiles:
        assert "x" not in tile
        assert tile.num_nodes < 400
        assert_close(ragged_rows(tile.gene_ids), ragged_rows(whole, tile.cell_index))


def test_tiles_carry_tokens_that_are_in_memory_already():
    data = to_data(SLIDE, tokens=Ranks(12), levels=(Grid(25.0), Grid(50.0)))
    for loader in (TileLoader([data], 100), HierarchicalLoader([data], 200)):
        rows = torch.empty(0, dtype=torch.long)
        for tile in loader:
            assert "x" not in tile
            assert_close(ragged_rows(tile.gene_ids), ragged_rows(data.gene_ids, tile.cell_index))
            rows = torch.cat([rows, tile.cell_index[tile.core]])
        assert rows.sort().values.tolist() == list(range(400))


def test_parts_of_a_slide_share_what_they_leave_as_it_is():
    data = Recipe(PANEL, levels=(Grid(25.0), Grid(50.0)))(SLIDE)
    for other in (in_hilbert_order(data), data.subgraph(torch.arange(9)), data.dense()):
        assert other.gene_mask.data_ptr() == data.gene_mask.data_ptr()
    assert in_hilbert_order(data).tissue_pos.data_ptr() == data.tissue_pos.data_ptr()


class Largest(TorchDispatchMode):
    """Most values of a tensor that was made, views of what is there left out."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and "view" not in func.name() and not func.is_view:
            self.values = max(self.values, made.numel())
        return made


def test_the_work_for_a_tile_does_not_grow_with_the_slide():
    """A slide of ten million cells has thousands of tiles: a mask of it for each is too much."""
    slide = make_tissue(4000, num_genes=9, image=None)
    data = Recipe(GenePanel(slide.symbols), levels=(Grid(25.0), Grid(50.0)))(slide)
    core = torch.tensor([7])
    cut_tile(data, core, 1)  # what is kept of the edges is made once
    with Largest() as largest:
        tile = cut_tile(data, core, 1)
    assert tile.num_nodes < largest.values < 2000


def test_tiles_of_three_levels_hold_all_members_of_what_they_hold():
    recipe = Recipe(PANEL, levels=(Grid(20.0), Grid(40.0), Grid(80.0, "block")))
    data = recipe(SLIDE)
    tiles = list(TileLoader([data], tile_size=60, num_hops=0))
    assert len(tiles) > 2
    for tile in tiles:
        block = data.group_of_cell("block")[tile.cell_index]
        assert_close(
            torch.bincount(block)[block.unique()],
            torch.bincount(data.group_of_cell("block"))[block.unique()],
        )
        own = tile.group_of_cell("block")
        assert (own >= 0).all()
        assert len(own.unique()) == tile.num_items("block") == len(block.unique())


def test_workers_read_the_same_crops_from_a_file(tmp_path, monkeypatch):
    """A file that is open before a fork has one position for all processes."""
    pixels = SLIDE.image.pixels(slice(None), slice(None))[..., 0]
    tifffile.imwrite(tmp_path / "image.tif", pixels, tile=(16, 16), compression="zlib")
    image = SlideImage.open(tmp_path / "image.tif", mpp=SLIDE.image.mpp)
    recipe = Recipe(PANEL, levels=(Grid(30.0), Grid(60.0)), crops=(Crop(16.0, 16),))
    data = recipe(Slide(SLIDE.adata, image, slide_id="file"))
    monkeypatch.setattr(HELD, "max_bytes", 0)  # every batch is read anew
    alone = [tile.image for tile in TileLoader([data], 20, 1)]
    assert len(alone) > 8
    for _ in range(3):
        shared = [tile.image for tile in TileLoader([data], 20, 1, num_workers=2)]
        assert all(map(torch.equal, shared, alone))
