"""``project_modalities``: genes and images of the cells of a slide in one space."""

import numpy as np
import torch
from numpy.typing import NDArray

from spatiagraph.data.convert import TissueData
from spatiagraph.data.loader import TileLoader
from spatiagraph.data.slide import Slide
from spatiagraph.models.spatia import Spatia
from spatiagraph.training.devices import as_device
from spatiagraph.training.encoding import over_tiles


def project_modalities(
    model: Spatia,
    slide: Slide,
    *,
    tile_size: int = 512,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Project the image and the genes of each cell to where the model compares them.

    Neither side looks at the other: these are the projections that the objective ``cross_modal`` of
    :class:`~spatiagraph.tasks.SpatiaPretraining` brings together, and what
    :func:`~spatiagraph.evaluate.score_retrieval` takes.

    Args:
        model: A model of genes and images.
        slide: The slide, with an image.
        tile_size: Cells that are encoded at a time, at most.
        device: Where the model runs; ``"auto"`` is CUDA where there is one.
        progress: Show a progress bar.

    Returns:
        Projections of images and of genes, ``[N, D]`` each; NaN for cells off the image.

    Raises:
        ValueError: If the model does not read both, or the slide has no image or no counts.
    """
    if slide.image is None:
        raise ValueError(f"Expected an image with slide {slide.slide_id!r}, got none")
    if not slide.is_counted:
        raise ValueError(f"Expected counts in slide {slide.slide_id!r}, got none in all its cells")
    data = model.prepare(slide, device=as_device(device))

    @torch.no_grad()
    def projected(tile: TissueData, device: torch.device) -> dict[str, torch.Tensor]:
        streams = model.cell_encoder.streams(model.cells(tile.to(device)))
        genes, image = model.project_modalities(streams)
        if streams.image_mask is not None:
            image = image.masked_fill(~streams.image_mask.unsqueeze(1), torch.nan)
        return {"genes": genes, "image": image}

    found = over_tiles(
        model,
        TileLoader([data], tile_size, 0),
        projected,
        slide.num_cells,
        device=device,
        desc="project",
        progress=progress,
    )
    return found["image"].numpy(), found["genes"].numpy()
