"""``embed_query``: a slide that was only sequenced, or only photographed, as a query."""

from typing import Literal

import anndata
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide
from spatiagraph.inference.embedding import embed_data
from spatiagraph.models.base import SlideModel
from spatiagraph.training.devices import as_device

Modality = Literal["genes", "image"]


def embed_query(
    model: SlideModel,
    slide: Slide,
    modality: Modality | None = None,
    *,
    tile_size: int = 8192,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> dict[str, NDArray[np.float32]]:
    """Embeddings of a slide to search with; the slide is left as it is.

    The other modality is missing, not zero. A :class:`~spatiagraph.models.Spatia` or
    :class:`~spatiagraph.models.ContextModel` puts its learned null in its place, so the result
    lies in the space of what :func:`~spatiagraph.inference.embed` writes. How near it comes to the
    embedding of both depends on whether the model has seen cells with one modality in training, as
    :class:`~spatiagraph.tasks.SpatiaPretraining` shows it (``drop_genes``, ``drop_image``) and
    :class:`~spatiagraph.tasks.MaskedGenes` does not.

    :class:`~spatiagraph.models.STAlign` has no nulls: ``"cell"`` and ``"niche"`` are made of the
    only modality then and are not to be compared with those of both. Compare ``"niche_img"`` and
    ``"niche_gene"``, or ``"spot_img"`` and ``"spot_gene"``, which were brought to one space.

    Args:
        model: The model that embedded what is searched.
        slide: The slide. For ``"image"`` its genes are not looked at, and may be none of the
            model's.
        modality: ``"genes"`` or ``"image"`` alone; all there is when ``None``, which is the image
            of a slide on which nothing was counted.
        tile_size: Core cells of a tile, at most.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.

    Returns:
        Level → ``[N, D]``, one row per cell, as
        :func:`~spatiagraph.inference.embedding.embed_data` gives them.

    Raises:
        ValueError: If the model does not read that modality, or the slide does not have it.
    """
    if modality not in ("genes", "image", None):
        raise ValueError(f"Expected 'modality' genes, image or None, got {modality!r}")
    if modality is not None:
        slide = _with_one_modality(model, slide, modality)
    return embed_data(
        model,
        model.prepare(slide, device=as_device(device)),
        tile_size=tile_size,
        device=device,
        progress=progress,
        read_genes=modality != "image",
    )


def _with_one_modality(model: SlideModel, slide: Slide, modality: Modality) -> Slide:
    """The slide without the other modality."""
    if not model.modalities:
        raise ValueError(
            f"Expected a model of genes and images with 'modality', got a {type(model).__name__}"
        )
    if modality == "genes":
        if "genes" not in model.modalities:
            raise ValueError("Expected a model that reads genes, this one reads images alone")
        return _without_image(slide)
    if "image" not in model.modalities:
        raise ValueError("Expected a model that reads images, this one reads genes alone")
    if slide.image is None:
        raise ValueError(f"Expected an image with slide {slide.slide_id!r}, got none")
    return _without_genes(slide, model.panel)


def _without_image(slide: Slide) -> Slide:
    return Slide(slide.adata, slide_id=slide.slide_id, expression=slide.expression, check=False)


def _without_genes(slide: Slide, panel: GenePanel) -> Slide:
    """The same cells, with nothing counted of the panel."""
    adata = anndata.AnnData(
        csr_matrix((slide.num_cells, len(panel)), dtype=np.float32),
        obs=slide.adata.obs,
        var=pd.DataFrame(index=list(panel.symbols)),
        obsm=dict(slide.adata.obsm),
    )
    return Slide(adata, slide.image, slide_id=slide.slide_id, check=False)
