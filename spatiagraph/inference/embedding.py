"""``embed``: embeddings of every cell, niche and region of a slide, tile by tile."""

from typing import Any, overload

import anndata
import numpy as np
import torch
from numpy.typing import NDArray

from spatiagraph._typed import typed
from spatiagraph.data.cohort import Cohort, CohortPart
from spatiagraph.data.convert import TissueData, write_embeddings
from spatiagraph.data.slide import Slide
from spatiagraph.inference.cohorts import embed_cohort
from spatiagraph.inference.levels import embed_tile
from spatiagraph.keys import UNS, embedding_key, group_key
from spatiagraph.models.base import SlideModel
from spatiagraph.nn.weights import weights_hash
from spatiagraph.retrieval.made_of import MADE_OF, vectors_made_of
from spatiagraph.training.devices import as_device
from spatiagraph.training.encoding import over_tiles
from spatiagraph.training.record import run_record

TILE_SIZE = 8192
"""Core cells of a tile, where nothing is said."""


@overload
def embed(model: SlideModel, slide: Cohort, **options: Any) -> Cohort: ...


@overload
def embed(model: SlideModel, slide: Slide, **options: Any) -> anndata.AnnData: ...


@typed  # type: ignore[misc]  # the two above take the options that are listed here
def embed(
    model: SlideModel,
    slide: Slide | Cohort,
    *,
    tile_size: int | None = None,
    shard: str | None = None,
    name: str | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> anndata.AnnData | Cohort:
    """Embed a slide and write the result to its AnnData, or all slides of a cohort.

    Tiles carry the context they need, so the result is that of the whole slide at once. Those of a
    cohort are written beside it as they are embedded, and go into its slides; a call that was
    interrupted goes on after the last tile.

    Args:
        model: A trained model.
        slide: The slide; genes are aligned to the model's panel. Those of a slide that was only
            photographed are missing, as of :func:`embed_query`. Or a cohort of its recipe.
        tile_size: Core cells of a tile, at most, 8192 when not given: the memory it takes, not the
            result. That of a cohort is its own.
        shard: Part of the tiles of a cohort to embed, such as ``"0/3"``: other processes embed the
            others, and :func:`~spatiagraph.data.cohort.merge_cohort` moves them all in.
        name: Name of the slots in place of ``model.name``, so that embeddings of two models of a
            kind stand beside each other, such as those of a model before training
            (:func:`~spatiagraph.keys.start_name`). Searches, reports and domains take those that a
            slide was embedded with last.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.

    Returns:
        ``slide.adata`` with ``obsm["X_{name}"]`` and ``obsm["X_{name}_{level}"]`` for every level
        of the recipe (one row per cell: its own, its niche's, its region's) and every further
        name that the model gives an embedding,
        ``obs["{name}_{level}"]`` where cells share groups, ``obsp["spatial_connectivities"]``,
        ``obsp["spatial_distances"]`` and ``uns["spatiagraph"]``, which says of vectors of
        :class:`~spatiagraph.models.STAlign` whether image, genes or both made them; and what else
        the model notes, see :meth:`SlideModel.notes <spatiagraph.models.SlideModel.notes>`. Of a
        cohort, the cohort: ``cohort["s0"].adata`` has the same,
        ``anndata.read_zarr(cohort.cells("s0"))`` the ``obsm``.

    Raises:
        ValueError: If the slide does not fit the model's panel or is too small for its graph, was
            only photographed and the model reads no images, or the cohort is of another recipe.
    """
    if isinstance(slide, Cohort):
        if tile_size not in (None, slide.tile_size):
            raise ValueError(
                f"Expected tile_size={slide.tile_size} of the cohort, got {tile_size}: leave it out"
            )
        return embed_cohort(model, slide, shard=shard, name=name, device=device, progress=progress)
    if shard is not None:
        raise ValueError(f"Expected a cohort with shard={shard!r}, got a slide: leave it out")
    tile_size = TILE_SIZE if tile_size is None else tile_size
    name = model.name if name is None else name
    data = model.prepare(slide, device=as_device(device))
    embeddings = embed_data(model, data, tile_size=tile_size, device=device, progress=progress)
    found = vectors_made_of(list(embeddings))
    own = {MADE_OF: found} if found else {}
    record = run_record(model, [slide], weights_hash=weights_hash(model), **own)
    uns = {"embed": record, "name": name}
    adata = write_embeddings(slide.adata, name, embeddings, data=data, uns=uns)
    notes = model.notes(data)
    for key, value in notes.obs.items():
        adata.obs[group_key(name, key)] = value
    for key, value in notes.obsm.items():
        adata.obsm[f"{embedding_key(name)}_{key}"] = value
    if notes.uns:
        adata.uns[UNS][name] = dict(notes.uns)
    return adata


def embed_data(
    model: SlideModel,
    data: TissueData | CohortPart,
    *,
    tile_size: int = TILE_SIZE,
    device: str | torch.device = "auto",
    progress: bool = False,
    read_genes: bool = True,
) -> dict[str, NDArray[np.float32]]:
    """Embeddings of a prepared slide, or one of a cohort: level → ``[N, D]``, one row per cell.

    A cell without a niche has NaN at the levels above. Arguments as in :func:`embed`, and with
    ``read_genes=False`` the genes of all cells are missing, as they are where nothing was counted.
    """
    if isinstance(data, TissueData) and "image" in model.modalities:
        read_genes = read_genes and bool(data.depth.any())

    def embedded(tile: TissueData, device: torch.device) -> dict[str, torch.Tensor]:
        return embed_tile(model, tile, device, read_genes=read_genes)

    if isinstance(data, CohortPart):
        tiles, num_cells = model.batches(data, data.tile_size), data.num_cells
    else:
        tiles, num_cells = model.batches([data], tile_size), int(data.num_nodes)
    found = over_tiles(model, tiles, embedded, num_cells, device=device, progress=progress)
    return {level: z.numpy() for level, z in found.items()}
