"""Objectives of SPATIA on cells and niches in context."""

import torch
from torch import Tensor, nn

from spatiagraph.losses.masked_cells import masked_cells_loss
from spatiagraph.losses.mean import masked_mean
from spatiagraph.losses.negative_binomial import negative_binomial_nll
from spatiagraph.losses.profile import niche_profile_loss
from spatiagraph.tasks.groups import group_totals, scored_groups
from spatiagraph.tasks.objective import Objective
from spatiagraph.tasks.spatia.view import SpatiaView


class Expression(Objective[SpatiaView]):
    """Masked counts, from the embedding of the cell in context.

    Genes that were hidden, and all genes of cells that were hidden from their surroundings, from
    what those surroundings say of them. Not in the paper; what trains the gates to let context in.
    """

    name = "expression"

    def forward(self, view: SpatiaView) -> Tensor | None:
        model, core, out = view.model, view.core, view.context
        whole = view.hidden.cells
        if whole is None and view.streams is None:
            return None  # encoded before from all genes, and nothing is hidden from it
        z, hidden = out.cell, view.hidden_genes
        if whole is not None and out.context is not None:
            z = torch.where(whole.unsqueeze(1), out.context, z)
            hidden = hidden | (whole.unsqueeze(1) & view.measured)
        z, hidden = z[core], hidden[core]
        measured, x = view.measured[core], view.batch.x[core]
        if model.likelihood == "gaussian":
            return masked_mean((model.head.linear(z) - model.target(x)).square(), hidden)
        expression = model.head(z, (x * measured).sum(1), measured)
        log_mu = expression.log_mu.masked_fill(~measured, 0)
        return masked_mean(negative_binomial_nll(x, log_mu, expression.log_theta), hidden)


class NicheProfile(Objective[SpatiaView]):
    """Mean expression of a niche from its embedding."""

    name = "niche_profile"

    def forward(self, view: SpatiaView) -> Tensor | None:
        if not view.context.levels:
            return None
        level = view.context.levels[0]
        groups = scored_groups(level.own, view.core, 1.0, None)
        total, size, cell = group_totals(level, groups, view.batch.x * view.measured)
        profile = view.model.heads.niche_head(level.h[groups])
        return niche_profile_loss(profile, total, size, view.measured[cell.clamp(min=0)])


class Pooling(Objective[SpatiaView]):
    """Auxiliary loss of learned poolings, where there are any."""

    name = "pooling"

    def forward(self, view: SpatiaView) -> Tensor | None:
        return view.context.loss


class MaskedCells(Objective[SpatiaView]):
    """Cells hidden from their niche, from what is around them.

    Args:
        weight: Factor of the term.
        channels: Size of an embedding.
    """

    name = "masked_cells"

    def __init__(self, weight: float, channels: int):
        super().__init__(weight)
        self.from_context = nn.Linear(2 * channels, channels)

    def forward(self, view: SpatiaView) -> Tensor | None:
        out, hidden = view.context, view.hidden.cells
        if hidden is None or out.context is None or not out.levels:
            return None
        level = out.levels[0]
        own = level.h[level.own.clamp(min=0)] * (level.own >= 0).unsqueeze(1)
        guess = self.from_context(torch.cat([out.context, own], 1))
        return masked_cells_loss(guess, view.z, hidden & view.core)


class MaskedNiches(Objective[SpatiaView]):
    """Niches hidden from their region, predicted from the remaining niches of it.

    Args:
        weight: Factor of the term.
        channels: Size of an embedding.
    """

    name = "masked_niches"

    def __init__(self, weight: float, channels: int):
        super().__init__(weight)
        self.from_context = nn.Linear(channels, channels)

    def forward(self, view: SpatiaView) -> Tensor | None:
        hidden = view.hidden.levels[0]
        if hidden is None or not view.context.levels:
            return None
        level = view.context.levels[0]
        scored = torch.zeros_like(hidden)
        scored[scored_groups(level.own, view.core, 1.0, None)] = True
        return masked_cells_loss(self.from_context(level.h), level.pooled, hidden & scored)
