"""``encode_cells``: cells as they are before any context, to train the context on."""

import torch
from tqdm.auto import tqdm

from spatiagraph.data.convert import TissueData
from spatiagraph.data.loader import TileLoader
from spatiagraph.models.base import HierarchicalModel
from spatiagraph.nn.mode import evaluating
from spatiagraph.training.devices import as_device

_CELL_INPUTS = ("x", "depth", "image", "image_mask", "window_um")


@torch.no_grad()
def encode_cells(
    model: HierarchicalModel,
    data: TissueData,
    *,
    chunk_size: int = 4096,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> torch.Tensor:
    """Embeddings of the cells of a prepared slide before any context, ``[N, D]`` float32.

    What the context of a model can be trained on when its cell encoder is not trained along.

    Args:
        model: A model with a ``cell_encoder``.
        data: The slide.
        chunk_size: Cells at once: the memory it takes, not the result.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.
    """
    device = as_device(device)
    loader = TileLoader([data], chunk_size, num_hops=0)
    result = torch.empty(0)
    with evaluating(model.to(device)):
        for tile in tqdm(loader, desc="encode cells", unit="tile", disable=not progress):
            core = tile.core
            cells = TissueData(
                gene_mask=tile.gene_mask,
                num_nodes=int(core.sum()),
                **{key: tile[key][core] for key in _CELL_INPUTS if key in tile},
            )
            z = model.encode(model.cells(cells.to(device))).float().cpu()
            if not len(result):
                result = z.new_empty(data.num_nodes, z.size(1))
            result[tile.cell_index[core]] = z
    return result
