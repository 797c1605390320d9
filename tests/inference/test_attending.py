import numpy as np
import torch

import spatiagraph as sg
from spatiagraph.inference import attention_graph
from spatiagraph.models import SToFM, SubSlices


def test_attention_to_cells_around_is_a_share_of_all():
    slide = sg.make_tissue(300, num_genes=30, image=None, seed=0)
    rule = SubSlices(partition="overlap", max_cells=120, halo=20, num_neighbors=9)
    model = SToFM.for_slides([slide], slices=rule)
    graph = attention_graph(model, slide)
    assert graph.shape == (300, 300)
    total = np.asarray(graph.sum(1)).ravel()
    assert (total > 0).all()
    assert (total < 1).all()
    assert graph.diagonal().sum() == 0
    assert np.diff(graph.indptr).min() >= 5  # virtual cells are among the nearest nodes, too
    data = model.prepare(slide)
    batch = next(iter(model.batches([data], 1)))
    (nodes,) = model.inputs(batch)
    i, j = next(p for p in nodes.pair_index.T.tolist() if batch.core[p[0]] and batch.core[p[1]])
    a, b = batch.cell_index[[i, j]].tolist()
    alone = model.eval().encoder.attention(nodes, torch.tensor([[i, j], [j, i]])).tolist()
    assert np.allclose([graph[a, b], graph[b, a]], alone, atol=1e-6)
    again = attention_graph(model, slide, tile_size=300)
    assert abs(again - graph).max() < 1e-6
    assert (slide.adata.obsp["stofm_attention"] != again).nnz == 0
