"""Masked-gene reconstruction at cell and niche level."""

import torch
from torch import Tensor
from torch_geometric.data import Data

from spatiagraph.losses.mean import masked_mean
from spatiagraph.losses.negative_binomial import negative_binomial_nll
from spatiagraph.models.context import ContextModel
from spatiagraph.tasks.base import LossOutput, Task
from spatiagraph.tasks.niches import niche_totals, scored_niches


class MaskedGenes(Task):
    r"""Hide genes, then ask the cell for them, and the niche for the sum over its cells.

    A random share of the measured genes of every cell is hidden. From what is left, the cell
    embedding predicts the counts that were hidden, the niche embedding the summed counts of the
    niche; both as negative binomials over the measured panel, or as squared error of normalised
    values where the model reads those. Losses are means per entry; 0 where nothing was hidden.

    Args:
        model: The model to train.
        mask_ratio: Share of measured genes to hide.
        niche_weight: Weight of the niche term; 0 leaves it out.
        niche_ratio: Share of the niches scored in each batch; neighbouring niches overlap, so a
            part of them says nearly as much as all.

    Raises:
        ValueError: If ``mask_ratio`` is not inside (0, 1).
    """

    model: ContextModel

    def __init__(
        self,
        model: ContextModel,
        *,
        mask_ratio: float = 0.3,
        niche_weight: float = 1.0,
        niche_ratio: float = 0.5,
    ):
        super().__init__()
        if not 0.0 < mask_ratio < 1.0:
            raise ValueError(f"Expected 'mask_ratio' between 0 and 1, got {mask_ratio}")
        self.model = model
        self.mask_ratio = mask_ratio
        self.niche_weight = niche_weight
        self.niche_ratio = niche_ratio

    def loss(self, batch: Data, generator: torch.Generator | None = None) -> LossOutput:
        x, core = batch.x, batch.core
        measured = self.model.gene_mask(batch)  # [N, G]
        hidden = torch.rand(x.shape, generator=generator, device=x.device) < self.mask_ratio
        hidden &= measured
        out = self.model(**self.model.inputs(batch, visible=measured & ~hidden))

        rows = core.nonzero().squeeze(1)
        cell = self._cell_loss(out.cell[rows], x[rows], measured[rows], hidden[rows])
        parts = {"cell": cell.detach()}
        loss = cell
        if self.niche_weight > 0:
            niche = self._niche_loss(out.niche, batch, measured, generator)
            parts["niche"] = niche.detach()
            loss = loss + self.niche_weight * niche
        if out.loss is not None:
            parts["pooling"] = out.loss.detach()
            loss = loss + out.loss
        return LossOutput(loss, parts, rows.numel())

    def _cell_loss(self, z: Tensor, x: Tensor, measured: Tensor, hidden: Tensor) -> Tensor:
        model = self.model
        if model.likelihood == "gaussian":
            target = model.cell_encoder.genes.normalize(x)
            return masked_mean((model.head.linear(z) - target)[hidden].square())
        expression = model.head(z, (x * measured).sum(1), measured)
        theta = expression.log_theta.expand_as(x)
        return masked_mean(
            negative_binomial_nll(x[hidden], expression.log_mu[hidden], theta[hidden])
        )

    def _niche_loss(
        self, z: Tensor, batch: Data, measured: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        model = self.model
        niches = scored_niches(batch, self.niche_ratio, generator)
        if model.likelihood == "gaussian":
            values = model.cell_encoder.genes.normalize(batch.x)
            total, size, _ = niche_totals(batch, niches, values)
            target = total / size.clamp(min=1).unsqueeze(1)
            return masked_mean((model.niche_head.linear(z[niches]) - target).square())
        total, _, cell = niche_totals(batch, niches, batch.x * measured)  # [M', G]
        seen = measured[cell.clamp(min=0)]  # a niche lies in one slide
        expression = model.niche_head(z[niches], total.sum(1), seen)
        nll = negative_binomial_nll(total, expression.log_mu, expression.log_theta)
        return masked_mean(nll[seen])
