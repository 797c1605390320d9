"""What every model of slides shares: how a slide gets in, and what comes out."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from spatiagraph.data.convert import SlideToGraph
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide
from spatiagraph.nn.hub import PretrainedModel


class Embeddings(NamedTuple):
    """Embeddings of the three levels.

    Attributes:
        cell: Cells in context, ``[N, D]``.
        niche: Niches, ``[M, D]``.
        tissue: Tissue regions, ``[R, D]``.
        niche_of_cell: Niche of each cell, ``[N]``; -1 for none.
        tissue_of_niche: Region of each niche, ``[M]``; -1 for none.
        loss: Auxiliary loss of learned poolings, or ``None``.
        context: Cells after messages from their neighbours, before any gate, ``[N, D]``.
        alone: Niches before they saw the others of their region, ``[M, D]``.
    """

    cell: Tensor
    niche: Tensor
    tissue: Tensor
    niche_of_cell: Tensor
    tissue_of_niche: Tensor
    loss: Tensor | None = None
    context: Tensor | None = None
    alone: Tensor | None = None


class SlideModel(PretrainedModel, abstract=True):
    """A model that ``fit``, ``embed`` and the command line can work with.

    A sub-class has the attributes below, and a ``forward`` whose arguments :meth:`inputs` takes
    from a batch and whose result is :class:`Embeddings`.

    Attributes:
        name: Short name: embeddings land in ``obsm["X_{name}"]``.
        prepare: How a slide becomes a graph; saved with the model.
        cell_encoder: Genes and image of a cell → ``[N, D]``.
        context_encoder: Cells → :class:`Embeddings`.
        tile_size: Core cells of a mini-batch that a laptop can train on.
    """

    name: str
    prepare: SlideToGraph
    cell_encoder: Any
    context_encoder: Any
    tile_size = 4096

    @property
    def panel(self) -> GenePanel:
        """The genes the model reads."""
        return self.prepare.panel

    @property
    def num_hops(self) -> int:
        """Hops over the cell graph that a cell embedding depends on."""
        return self.context_encoder.num_hops

    @staticmethod
    def gene_mask(batch: Data) -> Tensor:
        """Measured genes of each cell, ``[N, G]``."""
        mask = batch.gene_mask
        if mask.dim() == 2 and mask.size(0) != batch.num_nodes:
            mask = mask[batch.batch]  # one row per slide → one per cell
        return mask.expand(batch.num_nodes, -1)

    def cell_inputs(self, batch: Data, visible: Tensor | None = None) -> dict[str, Any]:
        """Arguments of ``cell_encoder`` from a batch, with only ``visible`` genes ``[N, G]`` shown.

        Raises:
            ValueError: If the batch has nothing that the model reads.
        """
        image = batch.get("image") if self.cell_encoder.image is not None else None
        if image is None and self.cell_encoder.genes is None:
            raise ValueError("Expected a slide with an image: the model reads images alone")
        return {
            "x": batch.x if self.cell_encoder.genes is not None else None,
            "gene_mask": self.gene_mask(batch) if visible is None else visible,
            "depth": batch.depth,
            "image": image,
            "image_mask": None if image is None else batch.image_mask,
        }

    def encode(self, batch: Data) -> Tensor:
        """Cells before any context, ``[N, D]``."""
        return self.cell_encoder(**self.cell_inputs(batch))

    def inputs(self, batch: Data, visible: Tensor | None = None) -> dict[str, Any]:
        """Arguments of ``forward`` from a batch, with only ``visible`` genes ``[N, G]`` shown."""
        raise NotImplementedError


def sample_of_cells(
    panel: GenePanel, slides: list[Slide], max_cells: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts ``[N, G]``, measured genes ``[N, G]`` and depth ``[N]`` of random cells of each slide.

    Args:
        panel: Genes, in order.
        slides: The slides.
        max_cells: Cells drawn from each slide at most.
        seed: Seed of the draw.
    """
    parts, masks, depths = [], [], []
    for slide in slides:
        counts, measured = panel.counts(slide)
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(counts.shape[0], generator=generator)[:max_cells].sort().values
        parts.append(torch.from_numpy(counts[rows.numpy()].toarray()))
        masks.append(torch.as_tensor(measured).expand(rows.numel(), -1))
        depths.append(torch.as_tensor(slide.depth)[rows])
    return torch.cat(parts), torch.cat(masks), torch.cat(depths)
