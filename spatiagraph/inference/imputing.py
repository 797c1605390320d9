"""``impute``: expression of genes that a slide did not measure."""

import pandas as pd
import torch

from spatiagraph.data.cohort import CohortPart
from spatiagraph.data.convert import TissueData
from spatiagraph.data.slide import Slide
from spatiagraph.inference.embedding import embed_data
from spatiagraph.models.base import SlideModel
from spatiagraph.training.cohorts import part_for
from spatiagraph.training.devices import as_device


def impute(
    model: SlideModel,
    slide: Slide | CohortPart,
    *,
    depth: float = 1e4,
    tile_size: int = 8192,
    device: str | torch.device = "auto",
    progress: bool = False,
) -> pd.DataFrame:
    """Expected expression of every gene of the model, from what the slide measured.

    It is what the expression head makes of the embeddings of cells, see
    :meth:`~spatiagraph.heads.ExpressionHead.expected`. How deep a cell was sequenced over the genes
    that were not measured is made up for as for every embedding, see
    :meth:`~spatiagraph.models.HierarchicalModel.depth`.

    Args:
        model: A model that was trained with genes hidden at random.
        slide: The slide; it may lack genes of the model, not have others only. Or one slide of a
            cohort, ``cohort.part(["s0"])``; cells that do not count there are NaN.
        depth: Counts that a whole cell is brought to.
        tile_size: Core cells of a tile, at most.
        device: Where the model runs.
        progress: Show a progress bar.

    Returns:
        Cells × genes of the panel, as log1p of so many counts per cell.

    Raises:
        ValueError: If the model reads no counts, or the slide does not fit its panel.
    """
    head = model.expression_head()
    data: TissueData | CohortPart
    if isinstance(slide, CohortPart):
        data = part_for(model, slide)
        if len(data.entries) != 1:
            raise ValueError(
                f"Expected one slide of a cohort, got {len(data.entries)}: cohort.part([name])"
            )
        names = data.read(0).adata.obs_names
    else:
        data, names = model.prepare(slide, device=as_device(device)), slide.adata.obs_names
    z = embed_data(model, data, tile_size=tile_size, device=device, progress=progress)["cell"]
    with torch.no_grad():
        values = head.expected(torch.from_numpy(z).to(head.linear.weight.device), depth).cpu()
    return pd.DataFrame(values.numpy(), names, model.panel.symbols)
