"""Masked-gene reconstruction at cell and niche level."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.data import Data

from spatiagraph.losses.mean import masked_mean
from spatiagraph.losses.negative_binomial import negative_binomial_nll
from spatiagraph.models.base import gene_mask
from spatiagraph.models.context import ContextModel
from spatiagraph.nn.cell_graph import Embeddings
from spatiagraph.tasks.groups import group_totals, scored_groups
from spatiagraph.tasks.objective import Objective, ObjectiveTask
from spatiagraph.tasks.streams import Streams


class MaskedView(NamedTuple):
    """Cells of which some genes were hidden, in context.

    Attributes:
        model: The model.
        batch: The batch, with all counts.
        measured: Genes that were measured, ``[N, G]``.
        hidden: Measured genes that the model did not see, ``[N, G]``.
        out: Embeddings from what was left.
        streams: Random streams of the step.
    """

    model: ContextModel
    batch: Data
    measured: Tensor
    hidden: Tensor
    out: Embeddings
    streams: Streams


class HiddenGenes(Objective[MaskedView]):
    """Counts that were hidden, from the embedding of the cell; mean per entry.

    A negative binomial over the measured panel, or squared error of normalised values where the
    model reads those; 0 where nothing was hidden.
    """

    name = "cell"

    def forward(self, view: MaskedView) -> Tensor:
        model, rows = view.model, view.batch.core
        z, x = view.out.cell[rows], view.batch.x[rows]
        measured, hidden = view.measured[rows], view.hidden[rows]
        if model.likelihood == "gaussian":
            target = model.cell_encoder.genes.normalize(x)
            return masked_mean((model.head.linear(z) - target)[hidden].square())
        expression = model.head(z, (x * measured).sum(1), measured)
        theta = expression.log_theta.expand_as(x)
        return masked_mean(
            negative_binomial_nll(x[hidden], expression.log_mu[hidden], theta[hidden])
        )


class NicheTotals(Objective[MaskedView]):
    """Summed counts of a niche, from the embedding of the niche.

    Args:
        weight: Factor of the term.
        ratio: Share of the niches scored in each batch; neighbouring niches overlap, so a part of
            them says nearly as much as all.
    """

    name = "niche"

    def __init__(self, weight: float = 1.0, ratio: float = 0.5):
        super().__init__(weight)
        self.ratio = ratio

    def forward(self, view: MaskedView) -> Tensor | None:
        if not view.out.levels:
            return None
        model, level, batch = view.model, view.out.levels[0], view.batch
        groups = scored_groups(level.own, batch.core, self.ratio, view.streams["niches"])
        z = level.h[groups]
        if model.likelihood == "gaussian":
            values = model.cell_encoder.genes.normalize(batch.x)
            total, size, _ = group_totals(level, groups, values)
            target = total / size.clamp(min=1).unsqueeze(1)
            return masked_mean((model.niche_head.linear(z) - target).square())
        total, _, cell = group_totals(level, groups, batch.x * view.measured)  # [M', G]
        seen = view.measured[cell.clamp(min=0)]  # a niche lies in one slide
        expression = model.niche_head(z, total.sum(1), seen)
        nll = negative_binomial_nll(total, expression.log_mu, expression.log_theta)
        return masked_mean(nll[seen])


class PoolingLoss(Objective[MaskedView]):
    """Auxiliary loss of learned poolings, where there are any."""

    name = "pooling"

    def forward(self, view: MaskedView) -> Tensor | None:
        return view.out.loss


class MaskedGenes(ObjectiveTask[MaskedView], pretrains=ContextModel):
    r"""Predict hidden genes from the cell, and the sum over its cells from the niche.

    A random share of the measured genes of every cell is hidden, and all genes of some cells, of
    which only their surroundings tell. From what is left, the cell embedding predicts the counts
    that were hidden (:class:`HiddenGenes`), the niche embedding the summed counts of the niche
    (:class:`NicheTotals`).

    Args:
        model: The model to train.
        mask_ratio: Share of measured genes to hide.
        cell_ratio: Share of cells to hide whole.
        niche_weight: Weight of the niche term; 0 leaves it out.
        niche_ratio: Share of the niches scored in each batch.
        seed: Of what only the task learns: nothing here.

    Raises:
        ValueError: If ``mask_ratio`` is not inside (0, 1), or ``cell_ratio`` not inside [0, 1).
    """

    model: ContextModel

    def __init__(
        self,
        model: ContextModel,
        *,
        mask_ratio: float = 0.5,
        cell_ratio: float = 0.15,
        niche_weight: float = 0.1,
        niche_ratio: float = 0.5,
        seed: int = 0,
    ):
        if not 0.0 < mask_ratio < 1.0:
            raise ValueError(f"Expected 'mask_ratio' between 0 and 1, got {mask_ratio}")
        if not 0.0 <= cell_ratio < 1.0:
            raise ValueError(f"Expected 'cell_ratio' from 0 to below 1, got {cell_ratio}")
        super().__init__(
            model, [HiddenGenes(), NicheTotals(niche_weight, niche_ratio), PoolingLoss()]
        )
        self.mask_ratio = mask_ratio
        self.cell_ratio = cell_ratio

    def view(self, batch: Data, streams: Streams) -> MaskedView:
        measured = gene_mask(batch)  # [N, G]
        x = batch.x
        chance = torch.rand(x.shape, generator=streams["genes"], device=x.device)
        whole = torch.rand(len(x), generator=streams["cells"], device=x.device) < self.cell_ratio
        hidden = ((chance < self.mask_ratio) | whole.unsqueeze(1)) & measured
        cells, graph = self.model.inputs(batch, visible=measured & ~hidden)
        out = self.model(cells, graph)
        return MaskedView(self.model, batch, measured, hidden, out, streams)
