"""``transplant``: what a cell would be if it stood in place of another."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from spatiagraph import keys
from spatiagraph.data.convert import TissueData, batched
from spatiagraph.data.loader import cut_tile, fill_tile
from spatiagraph.data.selection import rows_of
from spatiagraph.data.slide import Slide
from spatiagraph.inference.levels import levels_of
from spatiagraph.models.base import SlideModel
from spatiagraph.nn.mode import evaluating
from spatiagraph.training.devices import as_device


@torch.no_grad()
def transplant(
    model: SlideModel,
    slide: Slide,
    cells: Sequence[str] | NDArray[Any],
    positions: Sequence[str] | NDArray[Any],
    *,
    batch_size: int = 64,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> dict[str, NDArray[np.float32]]:
    """Embeddings of cells, each in place of another: its neighbours, its niche, its region.

    The two cells of a pair exchange their nodes of the graph and nothing else changes: genes and
    image go with the cell, position, edges and niche stay. Pairs do not see each other.

    Args:
        model: A trained model.
        slide: The slide.
        cells: Ids, rows or a mask of the cells, :math:`K`.
        positions: The cells at whose positions they are, as many; a cell at its own is embedded as
            it is.
        batch_size: Pairs at once: the memory it takes.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.

    Returns:
        Key of ``obsm`` → ``[K, D]``, as :func:`~spatiagraph.inference.embed` would write it; what
        :func:`~spatiagraph.inference.generate` takes as ``context``. NaN above the cell where
        a position has no niche.

    Raises:
        ValueError: Cells and positions differ in number, are none, or are not on the slide.

    Examples:
        >>> from spatiagraph.data import make_tissue
        >>> from spatiagraph.models import ContextModel
        >>> slide = make_tissue(300, image=None)
        >>> model = ContextModel.for_slides([slide], channels=8)
        >>> transplant(model, slide, [0, 1], [7, 8])["X_context_niche"].shape
        (2, 8)
    """
    rows, targets = rows_of(slide, cells), rows_of(slide, positions)
    if len(rows) != len(targets) or not len(rows):
        raise ValueError(
            f"Expected a position for each cell, got {len(rows)} cells and {len(targets)} positions"
        )
    device = as_device(device)
    data = model.prepare(slide, device=device)
    parts: dict[str, list[NDArray[np.float32]]] = {}
    starts = range(0, len(rows), batch_size)
    with evaluating(model.to(device)):
        for start in tqdm(starts, desc="transplant", unit="batch", disable=not progress):
            part = slice(start, start + batch_size)
            pairs = zip(rows[part].tolist(), targets[part].tolist(), strict=True)
            tiles = [_exchanged(data, i, j, model.num_hops) for i, j in pairs]
            batch = batched(tiles).to(device)
            out = model(*model.inputs(batch))
            for level, value in levels_of(out, batch.core, model.recipe.level_names).items():
                key = keys.embedding_key(model.name, level)
                parts.setdefault(key, []).append(value.float().cpu().numpy())
    return {key: np.concatenate(values) for key, values in parts.items()}


def _exchanged(data: TissueData, cell: int, position: int, num_hops: int) -> TissueData:
    """The surroundings of a position, with another cell at it."""
    tile = cut_tile(data, torch.tensor([position]), num_hops)

    def exchanged(rows: torch.Tensor) -> torch.Tensor:
        return rows.where(rows != cell, torch.tensor(position)).where(
            rows != position, torch.tensor(cell)
        )

    return fill_tile(tile, data, 0, take_cells=exchanged)
