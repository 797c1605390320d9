"""``attention_graph``: how much cells attend to the cells around them."""

import numpy as np
import torch
from scipy.sparse import csr_matrix

from spatiagraph.data.slide import Slide
from spatiagraph.graph.pairs import NodeKind
from spatiagraph.keys import group_key
from spatiagraph.models.stofm import SToFM
from spatiagraph.nn.mode import evaluating
from spatiagraph.training.devices import as_device


@torch.no_grad()
def attention_graph(
    model: SToFM, slide: Slide, *, tile_size: int = 4096, device: str | torch.device = "auto"
) -> csr_matrix:
    """Attention of each cell to the cells of known distance, and written to ``obsp``.

    Of the last layer, mean over heads. What a cell attends to beside them (``CLS``, virtual cells,
    cells that are far) makes up the rest to 1.

    Args:
        model: A trained model.
        slide: The slide; ``slide.adata.obsp["stofm_attention"]`` is written.
        tile_size: Cells at a time: the memory it takes, not the result.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.

    Returns:
        ``[N, N]`` float32: row ``i`` is what cell ``i`` attends to.

    Raises:
        ValueError: If the slide does not fit the model.
    """
    device = as_device(device)
    data = model.prepare(slide, device=device)
    rows, columns, weights = [], [], []
    with evaluating(model.to(device)):
        for tile in model.batches([data], tile_size):
            batch = tile.to(device)
            (nodes,) = model.inputs(batch)
            both = torch.cat([nodes.pair_index, nodes.pair_index.flip(0)], 1)
            asked = batch.core[both[0]] & (batch.kind[both[1]] == NodeKind.CELL)
            i, j = both[:, asked]
            weights.append(model.encoder.attention(nodes, torch.stack([i, j])).cpu().numpy())
            rows.append(batch.cell_index[i].cpu().numpy())
            columns.append(batch.cell_index[j].cpu().numpy())
    place = (np.concatenate(rows), np.concatenate(columns))
    shape = (slide.num_cells, slide.num_cells)
    graph = csr_matrix((np.concatenate(weights).astype(np.float32), place), shape=shape)
    slide.adata.obsp[group_key(model.name, "attention")] = graph
    return graph
