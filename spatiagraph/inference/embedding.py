"""``embed``: embeddings of every cell, niche and region of a slide, tile by tile."""

from collections.abc import Sequence

import anndata
import numpy as np
import torch
from numpy.typing import NDArray

from spatiagraph._typed import typed
from spatiagraph.data.convert import TissueData, write_embeddings
from spatiagraph.data.slide import Slide
from spatiagraph.graph.hierarchy import region_of
from spatiagraph.keys import UNS, embedding_key, group_key
from spatiagraph.models.base import SlideModel
from spatiagraph.nn.cell_graph import Cells, Embeddings
from spatiagraph.nn.top_down import rows_or_zero
from spatiagraph.training.devices import as_device
from spatiagraph.training.encoding import over_tiles
from spatiagraph.training.record import run_record, weights_hash


@typed
def embed(
    model: SlideModel,
    slide: Slide,
    *,
    tile_size: int = 8192,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> anndata.AnnData:
    """Embed a slide and write the result to its AnnData.

    Tiles carry the context they need, so the result is that of the whole slide at once.

    Args:
        model: A trained model.
        slide: The slide; genes are aligned to the model's panel.
        tile_size: Core cells of a tile, at most: the memory it takes, not the result.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.

    Returns:
        ``slide.adata`` with ``obsm["X_{name}"]`` and ``obsm["X_{name}_{level}"]`` for every level
        of the recipe (one row per cell: its own, its niche's, its region's) and every further
        name that the model gives an embedding,
        ``obs["{name}_{level}"]`` where cells share groups, ``obsp["spatial_connectivities"]``,
        ``obsp["spatial_distances"]`` and ``uns["spatiagraph"]``; and what else the model notes, see
        :meth:`SlideModel.notes <spatiagraph.models.SlideModel.notes>`.

    Raises:
        ValueError: If the slide does not fit the model's panel or is too small for its graph.
    """
    data = model.prepare(slide, device=as_device(device))
    embeddings = embed_data(model, data, tile_size=tile_size, device=device, progress=progress)
    record = run_record(model, [slide], weights_hash=weights_hash(model))
    uns = {"embed": record, "name": model.name}
    adata = write_embeddings(slide.adata, model.name, embeddings, data=data, uns=uns)
    notes = model.notes(data)
    for key, value in notes.obs.items():
        adata.obs[group_key(model.name, key)] = value
    for key, value in notes.obsm.items():
        adata.obsm[f"{embedding_key(model.name)}_{key}"] = value
    if notes.uns:
        adata.uns[UNS][model.name] = dict(notes.uns)
    return adata


def embed_data(
    model: SlideModel,
    data: TissueData,
    *,
    tile_size: int = 8192,
    device: str | torch.device = "auto",
    progress: bool = False,
    read_genes: bool = True,
) -> dict[str, NDArray[np.float32]]:
    """Embeddings of a prepared slide: level → ``[N, D]``, one row per cell.

    A cell without a niche has NaN at the levels above. Arguments as in :func:`embed`, and with
    ``read_genes=False`` the genes of all cells are missing.
    """

    def embedded(tile: TissueData, device: torch.device) -> dict[str, torch.Tensor]:
        batch = tile.to(device)
        given = model.inputs(batch)
        if not read_genes:
            given = tuple(v._replace(x=None) if isinstance(v, Cells) else v for v in given)
        return levels_of(model(*given), batch.core, model.recipe.level_names)

    tiles, num_cells = model.batches([data], tile_size), data.num_nodes
    found = over_tiles(model, tiles, embedded, num_cells, device=device, progress=progress)
    return {level: z.numpy() for level, z in found.items()}


def levels_of(out: Embeddings, core: torch.Tensor, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Embeddings of the core cells and of their groups: level → ``[C, D]``.

    A cell without a group has NaN at that level and those above.

    Args:
        out: Embeddings of a batch.
        core: Cells that count, ``[N]``.
        names: Names of the levels, from cells upwards.

    Raises:
        ValueError: If any is NaN or infinite: slides are finite, so the weights do not fit.
    """
    found = {"cell": _finite(out.cell[core])}
    own = None
    for name, level in zip(names, out.levels, strict=True):
        own = level.own[core] if own is None else region_of(own, level.own)
        found[name] = _take(level.h, own)
    return {**found, **{name: _finite(value[core]) for name, value in out.named.items()}}


def _take(z: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return _finite(rows_or_zero(z, index)).masked_fill((index < 0).unsqueeze(1), torch.nan)


def _finite(z: torch.Tensor) -> torch.Tensor:
    bad = int((~z.isfinite()).any(1).sum())
    if bad:
        raise ValueError(
            f"Expected finite embeddings, the model gave NaN or infinity for {bad} of {len(z)} "
            "cells of a finite slide: its weights are damaged, or made for another scale of values"
        )
    return z
