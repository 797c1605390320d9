import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch

from spatiagraph.data import GenePanel, LabelSet, SlideImage, make_tissue, to_data
from spatiagraph.data.convert import SlideToGraph
from spatiagraph.graph import (
    grid_niches,
    grid_patches,
    kd_parts,
    knn_graph,
    neighborhood_niches,
    niche_positions,
    radius_graph,
)

SLIDE = make_tissue(120, num_genes=30, image="dapi", seed=0)


def test_data_holds_what_the_slide_holds():
    data = to_data(SLIDE)
    np.testing.assert_array_equal(data.x.numpy(), SLIDE.counts.toarray())
    assert_close(data.depth, data.x.sum(1))
    assert data.gene_mask.all()
    distance = (data.pos[0] - data.pos[1]).norm().item()
    assert distance == pytest.approx(np.linalg.norm(SLIDE.pos[0] - SLIDE.pos[1]), rel=1e-5)
    assert data.validate()


def test_sparse_and_dense_counts_are_the_same():
    assert_close(to_data(SLIDE, sparse_counts=True).x.to_dense(), to_data(SLIDE).x)


def test_genes_come_in_the_order_of_the_panel_and_unmeasured_ones_are_masked():
    panel = GenePanel([SLIDE.symbols[4], "not measured", SLIDE.symbols[1]])
    data = to_data(SLIDE, panel=panel)
    assert data.gene_mask.tolist() == [True, False, True]
    np.testing.assert_array_equal(data.x[:, 0].numpy(), SLIDE.counts.toarray()[:, 4])
    np.testing.assert_array_equal(data.x[:, 2].numpy(), SLIDE.counts.toarray()[:, 1])
    assert_close(data.depth, torch.from_numpy(SLIDE.depth))  # over all genes of the slide


def test_grid_niches_hold_every_cell_once():
    data = to_data(SLIDE, niche=lambda pos: grid_niches(pos, 54.4))
    cell, niche = data.niche_index.as_tensor()
    assert cell.sort().values.tolist() == list(range(120))
    assert_close(niche, data.niche[cell])
    assert data.tissue.numel() == data.num_niches == int(data.niche.max()) + 1


def test_cells_without_niche_belong_to_no_region():
    niche = torch.arange(120) % 4
    niche[::3] = -1
    data = to_data(SLIDE, niche=niche)
    assert (data.tissue_of_cell[::3] == -1).all()
    assert data.niche_index.size(1) == int((niche >= 0).sum())


def test_batching_keeps_slides_niches_and_regions_apart():
    parts = [to_data(SLIDE), to_data(make_tissue(90, num_genes=30, image=None, seed=1))]
    batch = Batch.from_data_list(parts)
    slide = batch.batch
    source, target = batch.edge_index.as_tensor()
    assert (slide[source] == slide[target]).all()
    member, niche = batch.niche_index.as_tensor()
    assert_close(slide[member], (niche >= 120).long())
    assert batch.niche.max() == 209
    assert batch.gene_mask.shape == (2, 30)
    assert batch.tissue.max() == parts[0].num_tissues + parts[1].num_tissues - 1


def test_crops_come_with_a_mask():
    data = to_data(SLIDE, image=(16.0, 24))
    assert data.image.shape == (120, 1, 24, 24)
    assert 0.0 <= data.image.min() <= data.image.max() <= 1.0
    assert data.image_mask.shape == (120,)
    with pytest.raises(ValueError, match="Expected an image with slide"):
        to_data(make_tissue(90, num_genes=30, image=None), image=(16.0, 24))


def test_recipe_round_trips_and_refuses_a_tiny_slide():
    recipe = SlideToGraph(GenePanel(SLIDE.symbols), window_um=16.0)
    assert SlideToGraph.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match="at least 16 cells .* got 1 in 'synthetic'"):
        recipe(SLIDE[:1])


def test_any_graph_will_do():
    data = to_data(SLIDE, graph=lambda pos: knn_graph(pos, 3))
    assert data.edge_index.size(1) == 360


# SlideToGraph -------------------------------------------------------------------------------------

PANEL = GenePanel(SLIDE.symbols)
LABELS = LabelSet.from_slides([SLIDE], ["cell_type", "niche"])
SPATIA = SlideToGraph(
    PANEL,
    graph="niche",
    niche="grid",
    niche_um=25.0,
    tissue="grid",
    tissue_um=50.0,
    window_um=16.0,
    size_px=8,
    niche_image=True,
    tissue_image=True,
    labels=LABELS,
)


def pairs(edge_index):
    return set(zip(*edge_index.as_tensor().tolist(), strict=True))


def test_a_recipe_without_options_is_the_graph_of_to_data():
    data = SlideToGraph(PANEL)(SLIDE)
    assert sorted(data.keys()) == sorted(to_data(SLIDE).keys())
    assert_close(data.edge_index.as_tensor(), knn_graph(SLIDE.pos, 8).as_tensor())
    assert_close(
        data.niche_index.as_tensor(),
        neighborhood_niches(SLIDE.pos, 15, max_ratio=None).as_tensor(),
    )
    assert_close(data.tissue, kd_parts(niche_positions(SLIDE.pos, data.niche_index), 256))


def test_cells_of_a_niche_are_joined_with_each_other_and_themselves():
    data = SPATIA(SLIDE)
    same = data.niche[:, None] == data.niche[None]
    assert pairs(data.edge_index) == set(map(tuple, same.nonzero().tolist()))
    assert_close(data.niche, grid_niches(SLIDE.pos, 25.0))


def test_whole_squares_of_niches_fill_a_square_of_tissue():
    data = SPATIA(SLIDE)
    patches = grid_patches(SLIDE.pos, 25.0)
    block = torch.stack([patches.row // 2, patches.col // 2], 1)
    same = (block[:, None] == block[None]).all(-1)
    assert torch.equal(same, data.tissue[:, None] == data.tissue[None])


def test_niches_may_be_circles_or_labels():
    circles = SlideToGraph(PANEL, graph="radius", niche="radius", radius_um=20.0)(SLIDE)
    assert pairs(circles.edge_index) == pairs(radius_graph(SLIDE.pos, 20.0))
    near = pairs(circles.edge_index) | {(i, i) for i in range(120)}
    assert pairs(circles.niche_index) == near

    slide = SLIDE[:]
    slide.adata.obs["area"] = np.array(["b", "a", None] * 40, dtype=object)
    data = SlideToGraph(PANEL, graph="niche", niche="labels", niche_key="area")(slide)
    assert data.niche[:3].tolist() == [1, 0, -1]
    assert data.num_niches == 2
    assert (2, 2) in pairs(data.edge_index)  # a cell without niche hears itself alone
    assert not {(2, 5), (5, 2)} & pairs(data.edge_index)


def test_crops_of_niches_and_regions_show_the_slide_around_their_centres():
    data = SPATIA(SLIDE)
    centres = niche_positions(SLIDE.pos, data.niche)
    crops, mask = SLIDE.image.crops(centres.numpy(), 25.0, 8)
    np.testing.assert_array_equal(data.niche_image, crops)
    np.testing.assert_array_equal(data.niche_image_mask, mask)
    crops, _ = SLIDE.image.crops(niche_positions(centres, data.tissue).numpy(), 50.0, 8)
    np.testing.assert_array_equal(data.tissue_image, crops)
    assert data.tissue_image_mask.shape == (data.num_tissues,)
    assert_close(data.window_um, torch.full((120,), 16.0))


def test_each_cell_may_have_a_window_of_its_own():
    slide = SLIDE[:]
    slide.adata.obs["box"] = np.r_[np.nan, np.linspace(8, 30, 119)]
    data = SlideToGraph(PANEL, window_um=13.6, window_key="box", size_px=8)(slide)
    window = np.r_[13.6, np.linspace(8, 30, 119)]
    assert_close(data.window_um, torch.from_numpy(window).float())
    np.testing.assert_array_equal(data.image, SLIDE.image.crops(SLIDE.pos, window, 8)[0])
    with pytest.raises(ValueError, match=r"\['box'\], got nan for row 0 'cell0'. Give window"):
        SlideToGraph(PANEL, window_key="box")(slide)
    with pytest.raises(ValueError, match=r"'bx' in the obs .* Nearest: 'box'"):
        SlideToGraph(PANEL, window_key="bx")(slide)


def test_slides_without_image_have_no_crops():
    data = SPATIA(make_tissue(90, num_genes=30, image=None))
    assert not [key for key in data.keys() if "image" in key or "window" in key]


@pytest.mark.parametrize("key", ["window_um", "niche_um", "tissue_um"])
def test_crops_larger_than_the_image_are_refused(key):
    recipe = replace(SPATIA, **{key: 5000.0})
    message = f"no larger than the image of slide 'synthetic' .* 5000 µm .* lower {key}"
    with pytest.raises(ValueError, match=message):
        recipe(SLIDE)


def test_labels_come_as_numbers():
    assert_close(SPATIA(SLIDE).labels, LABELS.encode(SLIDE))


def test_recipe_with_all_options_round_trips():
    again = SlideToGraph.from_dict(json.loads(json.dumps(SPATIA.to_dict())))
    assert again == SPATIA
    old = {k: v for k, v in SlideToGraph(PANEL).to_dict().items() if k in {"panel", "niche_size"}}
    assert SlideToGraph.from_dict(old) == SlideToGraph(PANEL)  # saved before there were options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"graph": "delaunay"}, "'graph' knn, radius, niche, got 'delaunay'"),
        ({"niche": "hex"}, "'niche' neighborhood, grid, radius, labels, got 'hex'"),
        ({"tissue": "slide"}, "'tissue' parts, grid, got 'slide'"),
        ({"niche_um": 0}, "'niche_um' above 0, got 0"),
        ({"graph": "niche"}, "do not overlap"),
        ({"niche": "labels"}, "'niche_key' with niche=\"labels\""),
        ({"niche_key": "area"}, "'niche_key' with niche=\"labels\""),
    ],
)
def test_recipe_refuses_options_that_do_not_exist_or_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        SlideToGraph(PANEL, **options)


def test_recipe_refuses_a_slide_without_its_niches():
    recipe = SlideToGraph(PANEL, niche="labels", niche_key="nich")
    with pytest.raises(ValueError, match=r"'nich' in the obs of .* Nearest: 'niche'"):
        recipe(SLIDE)
    slide = SLIDE[:]
    slide.adata.obs["nich"] = np.nan
    with pytest.raises(ValueError, match="all 120 are missing"):
        recipe(slide)


def test_niches_are_the_same_tissue_on_a_platform_with_other_pixels():
    """SPATIA fact 3: niches and their images, of one slide scanned at 0.5 and at 0.25 µm/px."""
    fine = np.repeat(np.repeat(SLIDE.image.pixels(slice(None), slice(None)), 2, 0), 2, 1)
    other = SLIDE[:]
    other.image = SlideImage([fine], mpp=0.25)
    other.image.value_range = SLIDE.image.value_range
    a, b = SPATIA(SLIDE), SPATIA(other)
    assert_close(b.niche, a.niche)
    assert_close(b.tissue, a.tissue)
    # windows are snapped to whole pixels, which are half as large here
    assert (b.niche_image - a.niche_image).abs().mean() < 0.1 * a.niche_image.std()


def test_a_niche_may_have_one_cell():
    """SPATIA fact 19."""
    data = replace(SPATIA, niche_um=1.0, niche_image=False)(SLIDE)
    assert data.num_niches == 120
    assert pairs(data.edge_index) == {(i, i) for i in range(120)}


def test_batching_keeps_crops_labels_and_features_of_every_level():
    """SPATIA fact 19."""
    other = make_tissue(90, num_genes=30, image="dapi", seed=1)
    parts = [SPATIA(SLIDE), SPATIA(other)]
    for data in parts:
        data.x = data.x.to_dense()
        data.z = torch.randn(data.num_nodes, 3, generator=torch.Generator().manual_seed(0))
    batch = Batch.from_data_list(parts)
    for key in (
        *("image", "image_mask", "window_um", "labels", "z"),
        *("niche_image", "niche_image_mask", "tissue_image", "tissue_image_mask"),
    ):
        assert_close(batch[key], torch.cat([data[key] for data in parts]))
    assert batch.niche_image.size(0) == batch.num_niches == batch.tissue.numel()
    assert batch.tissue_image.size(0) == batch.num_tissues == int(batch.tissue.max()) + 1
    source, target = batch.edge_index.as_tensor()
    assert_close(batch.niche[source], batch.niche[target])
