import numpy as np
import pytest
import torch

import spatiagraph as sg
from spatiagraph import plot
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


def test_attention_of_a_cell_is_drawn_where_its_neighbours_are(tmp_path):
    slide = sg.make_tissue(200, num_genes=30, image=None, seed=0)
    model = SToFM.for_slides([slide], slices=SubSlices(max_cells=120, num_neighbors=9))
    with pytest.raises(ValueError, match="attention_graph writes it"):
        plot.cell_attention(slide, 3)
    graph = attention_graph(model, slide)
    ax = plot.cell_attention(slide, 3, save=tmp_path / "attention.png")
    assert (tmp_path / "attention.png").stat().st_size > 1000
    (star,) = ax.lines
    assert np.allclose(star.get_xydata(), slide.pos[3])
    near = slide.pos[graph[3].indices]
    (x0, x1), (y1, y0) = ax.get_xlim(), ax.get_ylim()
    assert ((near >= (x0, y0)) & (near <= (x1, y1))).all()
    discs = next(c for c in ax.collections if len(c.get_offsets()))
    at = {tuple(p): tuple(c) for p, c in zip(np.round(discs.get_offsets(), 3),
                                             discs.get_facecolor(), strict=True)}  # fmt: skip
    other = [i for i in range(200) if i not in graph[3].indices and (slide.pos[i] > (x0, y0)).all()
             and (slide.pos[i] < (x1, y1)).all()]  # fmt: skip
    grey = {at[tuple(np.round(slide.pos[i], 3))] for i in other}
    assert len(grey) == 1
    assert at[tuple(np.round(near[0], 3))] not in grey
    assert plot.cell_attention(slide, np.int64(3)).get_title() == ax.get_title()
    assert plot.cell_attention(slide.adata, slide.adata.obs_names[3]).get_title()
    with pytest.raises(ValueError, match="a cell among 200, got 'nobody'"):
        plot.cell_attention(slide, "nobody")
