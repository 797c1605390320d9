import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torch_geometric.data import Batch

from spatiagraph.data import GenePanel, make_tissue, to_data
from spatiagraph.data.convert import SlideToGraph
from spatiagraph.graph import grid_niches, knn_graph

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
