"""View of SPATIA's objectives: masked cells, on their own and in context."""

from functools import cached_property

import torch
from torch import Tensor
from torch_geometric.data import Data

from spatiagraph.losses.thinning import thin
from spatiagraph.models.base import gene_mask
from spatiagraph.models.spatia import Spatia
from spatiagraph.nn.cell_graph import CellGraph, Cells, Embeddings, Hidden
from spatiagraph.nn.token_cell import CellStreams
from spatiagraph.tasks.spatia.corruption import Corruption
from spatiagraph.tasks.streams import Streams


class SpatiaView:
    """Forward passes of one batch, each made when an objective first needs it.

    Args:
        model: The model.
        batch: The batch.
        streams: Random streams of the step.
        corruption: How much is taken from the input.
    """

    def __init__(self, model: Spatia, batch: Data, streams: Streams, corruption: Corruption):
        self.model = model
        self.batch = batch
        self.random = streams
        self.corruption = corruption

    @cached_property
    def streams(self) -> CellStreams | None:
        """Token streams of masked cells; ``None`` on cached embeddings."""
        batch, model, hide = self.batch, self.model, self.corruption
        if batch.get("z") is not None:
            return None
        given = model.cells(batch)
        x, image, depth = given.x, given.image, given.depth
        gene_present = image_mask = visible = unvalued = None
        if x is not None:
            visible, unvalued = self._shown
            if model.likelihood == "zinb" and hide.thin_rate > 0:
                assert depth is not None  # of a batch with counts
                x = thin(x, hide.thin_rate, generator=self.random["thin"])
                depth = depth * (1 - hide.thin_rate)
        if x is not None and image is not None:
            gene_present, image_mask = self._kept_modalities(given)
        elif image is not None:
            image_mask = given.image_mask
        shown = Cells(
            x, image, visible, depth, gene_present, image_mask, given.window_um, value_mask=unvalued
        )
        return model.cell_encoder.streams(shown, self.random["tokens"])

    def _kept_modalities(self, given: Cells) -> tuple[Tensor, Tensor]:
        """Cells that keep their genes, and those that keep their image, ``[N]`` each."""
        assert given.image_mask is not None  # comes with the image
        num, device = len(given.image_mask), given.image_mask.device
        chance = torch.rand(num, generator=self.random["modality"], device=device)
        image_mask = given.image_mask & (chance >= self.corruption.drop_image)
        return (chance < 1 - self.corruption.drop_genes) | ~given.image_mask, image_mask

    @cached_property
    def second_pass(self) -> Tensor | None:
        """Gene stream of the cells from their own cell tokens, ``[N, T + L, d]``; the bottleneck.

        ``None`` where no genes are read.
        """
        streams = self.streams
        if streams is None or streams.gene_tokens is None:
            return None
        return self.model.cell_encoder.decode(streams)

    @cached_property
    def _shown(self) -> tuple[Tensor, Tensor]:
        """Genes that may be seen, and those of them whose counts may not, ``[N, G]`` each."""
        hide, measured = self.corruption, self.measured
        chance = torch.rand(measured.shape, generator=self.random["genes"], device=measured.device)
        visible = measured & (chance >= hide.mask_ratio)
        limit = hide.mask_ratio + hide.value_ratio * (1 - hide.mask_ratio)  # of the same draw
        return visible, visible & (chance < limit)

    @cached_property
    def hidden_genes(self) -> Tensor:
        """Measured genes of each cell whose counts are masked, ``[N, G]``.

        All of a cell whose genes were dropped, and none of cells that were encoded before.
        """
        streams, measured = self.streams, self.measured
        if streams is None:
            return torch.zeros_like(measured)
        if streams.gene_tokens is None:  # images alone
            return measured
        visible, unvalued = self._shown
        hidden = measured & (~visible | unvalued)
        if streams.gene_present is None:
            return hidden
        return torch.where(streams.gene_present.unsqueeze(1), hidden, measured)

    @cached_property
    def z(self) -> Tensor:
        """Cells before context, ``[N, D]``."""
        return self.batch.z if self.streams is None else self.streams.cell

    @cached_property
    def graph(self) -> CellGraph:
        """Graph and levels."""
        return self.model.graph(self.batch)

    @cached_property
    def measured(self) -> Tensor:
        """Genes that were measured, ``[N, G]``."""
        return gene_mask(self.batch)

    @cached_property
    def hidden(self) -> Hidden:
        """Cells and groups of the first level that are hidden from those above."""
        hide, z = self.corruption, self.z
        levels = self.graph.levels
        cells = groups = None
        if hide.cells:
            chance = torch.rand(len(z), generator=self.random["cells"], device=z.device)
            cells = chance < hide.hidden_ratio
        given = len(levels) > 1 and not self.model.context_encoder.levels[0].pool.assigns
        if hide.groups and given:  # from the others of their region
            num = len(levels[0].pos)
            chance = torch.rand(num, generator=self.random["niches"], device=z.device)
            groups = chance < hide.hidden_ratio
        return Hidden(cells, (groups,))

    @cached_property
    def context(self) -> Embeddings:
        """Cells in context, some of them hidden."""
        return self.model.context(self.z, self.graph, self.hidden)

    @property
    def core(self) -> Tensor:
        """Cells that count, ``[N]``."""
        return self.batch.core

    @property
    def core_with_genes(self) -> Tensor:
        """Core cells that kept their genes, ``[N]``."""
        present = None if self.streams is None else self.streams.gene_present
        return self.core if present is None else self.core & present

    @property
    def core_with_image(self) -> Tensor:
        """Core cells that kept their image, ``[N]``."""
        present = None if self.streams is None else self.streams.image_mask
        return self.core if present is None else self.core & present
