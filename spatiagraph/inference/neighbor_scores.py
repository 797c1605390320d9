"""``score_neighbors``: how sure a model is that two cells are neighbours."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.data.convert import TissueData
from spatiagraph.data.loader.cutting import cell_batch
from spatiagraph.data.slide import Slide
from spatiagraph.models.spatialformer import SpatialFormer
from spatiagraph.nn.mode import evaluating
from spatiagraph.training.devices import as_device


@torch.no_grad()
def score_neighbors(
    model: SpatialFormer,
    slide: Slide | TissueData,
    pairs: ArrayLike,
    *,
    both_orders: bool = True,
    batch_size: int = 128,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> NDArray[np.float32]:
    """Log-odds that the cells of each pair are neighbours, from their genes.

    A sequence has an order, which cells have not: both are scored and averaged, so that the score
    of two cells is exactly that of the other way round.

    Args:
        model: A trained model.
        slide: The slide, or what ``model.prepare`` made of it.
        pairs: Rows of the two cells of each pair, ``[P, 2]``.
        both_orders: Average both orders; else the first cell comes first.
        batch_size: Pairs that are scored together, of like length.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.

    Returns:
        Log-odds, ``[P]``; above 0 for neighbours.

    Raises:
        ValueError: If rows are none of the slide.
    """
    data = model.prepare(slide) if isinstance(slide, Slide) else slide
    ends = np.asarray(pairs, dtype=np.int64)
    if ends.ndim != 2 or ends.shape[1] != 2:
        raise ValueError(f"Expected pairs of rows [P, 2], got shape {list(ends.shape)}")
    if ends.size and not (0 <= ends.min() and ends.max() < data.num_nodes):
        raise ValueError(f"Expected rows of {data.num_nodes} cells, got {ends.min()}…{ends.max()}")
    length = data.x.crow_indices().diff().numpy()[ends].sum(axis=1)
    order = np.argsort(length, kind="stable")
    result = np.empty(len(ends), dtype=np.float32)
    device = as_device(device)
    with evaluating(model.to(device)):
        chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        for rows in tqdm(chunks, desc="score pairs", disable=not progress):
            cells, index = np.unique(ends[rows], return_inverse=True)
            batch = cell_batch(data, torch.from_numpy(cells)).to(device)
            scores = [
                model.neighbor_logit(model.sequences(batch, first, second))
                for first, second in _orders(index.reshape(-1, 2), device, both_orders)
            ]
            result[rows] = torch.stack(scores).mean(0).float().cpu().numpy()
    return result


def _orders(
    index: NDArray[np.int64], device: torch.device, both: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    first, second = torch.from_numpy(np.ascontiguousarray(index.T)).to(device)
    yield first, second
    if both:
        yield second, first
