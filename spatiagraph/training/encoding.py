"""Values of the cells of a slide, tile by tile; ``encode_cells``: cells before any context."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.data.convert import TissueData
from spatiagraph.data.loader import TileLoader
from spatiagraph.models.base import HierarchicalModel, SlideModel
from spatiagraph.nn.mode import evaluating
from spatiagraph.training.devices import as_device

_CELL_INPUTS = ("x", "depth", "image", "image_mask", "window_um")


def over_tiles(
    model: SlideModel,
    tiles: Iterable[TissueData],
    values: Callable[[TissueData, torch.device], Mapping[str, Tensor]],
    num_cells: int,
    *,
    device: str | torch.device = "auto",
    desc: str = "embed",
    progress: bool = False,
) -> dict[str, Tensor]:
    """Values of every cell from those of the core cells of each tile.

    Args:
        model: The model, which is evaluated and brought to the device.
        tiles: Tiles whose core cells are all cells of a slide, or some.
        values: Values of the core cells of a tile by name, ``[C, D]``.
        num_cells: Cells of the slide, :math:`N`.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.
        desc: Name of the progress bar.
        progress: Show it.

    Returns:
        Name → ``[N, D]`` float32, on the CPU; NaN where a cell is core of no tile.
    """
    result: dict[str, Tensor] = {}
    bar = tqdm(tiles, desc=desc, unit="tile", disable=not progress)
    for rows, found in each_tile(model, bar, values, device=device):
        for name, value in found.items():
            if name not in result:
                result[name] = torch.full((num_cells, value.size(1)), torch.nan)
            result[name][rows] = value
    return result


@torch.no_grad()
def each_tile(
    model: SlideModel,
    tiles: Iterable[TissueData],
    values: Callable[[TissueData, torch.device], Mapping[str, Tensor]],
    *,
    device: str | torch.device = "auto",
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Rows of the core cells of each tile in its slide, ``[C]``, and values of theirs by name.

    Arguments as of :func:`over_tiles`.
    """
    device = as_device(device)
    with evaluating(model.to(device)):
        for tile in tiles:
            found = values(tile, device)
            rows = tile.cell_index[tile.core].cpu()
            yield rows, {name: value.float().cpu() for name, value in found.items()}


def encode_cells(
    model: HierarchicalModel,
    data: TissueData,
    *,
    chunk_size: int = 4096,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> Tensor:
    """Embeddings of the cells of a prepared slide before any context, ``[N, D]`` float32.

    What the context of a model can be trained on when its cell encoder is not trained along.

    Args:
        model: A model with a ``cell_encoder``.
        data: The slide.
        chunk_size: Cells at once: the memory it takes, not the result.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.
    """

    def encoded(tile: TissueData, device: torch.device) -> dict[str, Tensor]:
        core = tile.core
        cells = TissueData(
            gene_mask=tile.gene_mask,
            num_nodes=int(core.sum()),
            **{key: tile[key][core] for key in _CELL_INPUTS if key in tile},
        )
        return {"cell": model.encode(model.cells(cells.to(device)))}

    found = over_tiles(
        model,
        TileLoader([data], chunk_size, num_hops=0),
        encoded,
        data.num_nodes,
        device=device,
        desc="encode cells",
        progress=progress,
    )
    return found.get("cell", torch.empty(0))
