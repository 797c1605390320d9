"""``score_contacts``: which types of dissociated cells a model takes for neighbours."""

import anndata
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from spatiagraph.data.slide import Slide
from spatiagraph.evaluate.type_contacts import TypeContacts, type_contacts
from spatiagraph.inference.embedding import embed_data
from spatiagraph.inference.neighbor_scores import score_neighbors
from spatiagraph.models.spatialformer import SpatialFormer

_APART_UM = 1000.0


def score_contacts(
    model: SpatialFormer,
    cells: anndata.AnnData,
    key: str,
    *,
    num_cells: int = 300,
    nearest: int | None = None,
    num_permutations: int = 5000,
    seed: int = 0,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> TypeContacts:
    """Score pairs of cells whose positions are not known, and sum the scores by type.

    Genes are all that is read. Both orders of every pair are asked, and :math:`N` cells have
    :math:`N (N - 1) / 2` pairs: some of the cells are drawn, as many of each type as there are
    shares of it.

    Args:
        model: A trained model.
        cells: Counts of dissociated cells, with the genes of the model.
        key: Column of ``obs`` with the type of each cell.
        num_cells: Cells to ask about, at most.
        nearest: Ask each cell only about this many others whose embeddings are nearest by cosine.
        num_permutations: See :func:`~spatiagraph.evaluate.type_contacts`.
        seed: Seed of the draw.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.

    Raises:
        ValueError: If there is no such column, or the cells do not fit the model.
    """
    if key not in cells.obs:
        raise ValueError(f"Expected a column {key!r} in obs of the cells, got none")
    if num_cells < 2 or (nearest is not None and nearest < 1):
        raise ValueError(
            f"Expected two cells or more, and a cell to compare, got {num_cells}, {nearest}"
        )
    rows = np.random.default_rng(seed).permutation(cells.n_obs)[:num_cells]
    drawn = cells[np.sort(rows)].to_memory()
    side = int(np.ceil(drawn.n_obs**0.5))
    drawn.obsm["spatial"] = _APART_UM * np.stack(
        np.divmod(np.arange(drawn.n_obs), side), axis=1
    ).astype(float)  # nobody's neighbours: places are not read
    data = model.prepare(Slide(drawn, slide_id="dissociated", assume_um=True))
    if nearest is None:
        pairs = np.stack(np.triu_indices(drawn.n_obs, 1), axis=1)
    else:
        cls = embed_data(model, data, device=device, progress=False)["cell"]
        pairs = _nearest(cls, nearest)
    odds = score_neighbors(model, data, pairs, device=device, progress=progress)
    types: pd.Series = drawn.obs[key]
    return type_contacts(
        pairs, odds > 0, types.astype(str), num_permutations=num_permutations, seed=seed
    )


def _nearest(z: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Pairs of cells of which one is among the nearest of the other, each once."""
    unit = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    near = np.argsort(-cosine, axis=1, kind="stable")[:, : min(k, len(z) - 1)]
    cell = np.repeat(np.arange(len(z)), near.shape[1])
    return np.unique(np.sort(np.stack([cell, near.ravel()], axis=1), axis=1), axis=0)
