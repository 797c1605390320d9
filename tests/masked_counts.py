"""Counts hidden in a block of tissue: the gain of a model over the mean profile, and of baselines.

The figure is a difference of log-likelihoods per hidden entry, in 10⁻³ nats: of a negative binomial
whose mean is the share that is predicted times the total of the cell, with the dispersion of each
gene that suits each method best; of normalised values, of a normal distribution likewise.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from scipy.spatial import cKDTree
from sklearn.linear_model import RidgeCV
from torch import Tensor

import spatiagraph as sg
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.models import ContextModel, Spatia
from spatiagraph.models.base import gene_mask, sample_of_cells
from spatiagraph.nn import GeneEncoder

THETA = torch.logspace(-1.5, 3, 19)
PRIORS = (0, 20, 50, 100, 200, 400, 800, 1600, 3200, 1e4)
FLOORS = (0.1, 0.2, 0.3, 0.5)


def block_of(slide: sg.Slide, fold: int = 0) -> tuple[sg.Slide, sg.Slide]:
    """A slide without a fifth of its tissue, and that fifth."""
    held_out = spatial_blocks(slide.pos, num_folds=5, seed=0) == fold
    sides = []
    for rows, name in ((~held_out, "train"), (held_out, "test")):
        adata = slide.adata[rows].copy()
        sides.append(
            sg.Slide(adata, slide.image, slide_id=name, assume_um=True, expression=slide.expression)
        )
    return sides[0], sides[1]


class MaskedCounts:
    """Hidden entries of the cells of a block, and what they are predicted from.

    Args:
        model: A model before training: its panel, and the components it starts from.
        train: Slide it is trained on.
        test: The block.
        ratio: Share of the genes of each cell that are hidden, or of cells.
        draws: How often.
        whole: Hide whole cells and not genes.
    """

    def __init__(
        self,
        model: ContextModel | Spatia,
        train: sg.Slide,
        test: sg.Slide,
        *,
        ratio: float = 0.3,
        draws: int = 2,
        whole: bool = False,
    ):
        self.counted = model.likelihood != "gaussian"
        self.data = model.recipe(test)
        self.data.x = self.data.x.to_dense()
        self.x, self.measured = self.data.x, gene_mask(self.data)
        self.library = self.x.sum(1, keepdim=True)
        generator = torch.Generator().manual_seed(123)
        shape = (len(self.x), 1) if whole else self.x.shape
        self.hidden: Sequence[Tensor] = [
            (torch.rand(shape, generator=generator) < ratio) & self.measured for _ in range(draws)
        ]
        self.known, mask, depth = sample_of_cells(model.panel, [train], 20_000, 0)
        genes = model.cell_encoder.genes
        if not isinstance(genes, GeneEncoder):
            genes = model.cell_encoder.profile
        with torch.no_grad():
            self.values = genes.normalize(self.known, depth)
            self.z = genes(self.known, mask, depth)
            visible = [self.measured & ~hidden for hidden in self.hidden]
            self.z_test = [genes(self.x, seen, self.data.depth) for seen in visible]
            self.truth = self.x if self.counted else genes.normalize(self.x)
        self.mean = self.values.mean(0)
        if self.counted:
            total = self.known.sum(0) + 0.5
            self.mean = total / total.sum()

    def gain(self, predict: Callable[[int], Tensor]) -> float:
        """Gain over the mean profile of shares that are predicted for draw ``i``."""
        found = [
            self._likelihood(predict(i), hidden) - reference
            for i, (hidden, reference) in enumerate(zip(self.hidden, self._of_mean, strict=True))
        ]
        return 1e3 * float(np.mean(found))

    @torch.no_grad()
    def of_model(self, model: ContextModel | Spatia) -> float:
        """Gain of a model and its decoder."""
        model.eval()

        def predict(i: int) -> Tensor:
            out = model(*model.inputs(self.data, visible=self.measured & ~self.hidden[i]))
            if not self.counted:
                return model.head.linear(out.cell)
            return model.head(out.cell, torch.ones(len(self.x)), self.measured).log_mu.exp()

        return self.gain(predict)

    def of_similar_cells(self, k: int = 15) -> float:
        """Gain of the mean of the nearest cells in the start, with the prior that suits best."""
        near = [torch.cdist(z, self.z).topk(k, largest=False).indices for z in self.z_test]
        if not self.counted:
            return self.gain(lambda i: self.values[near[i]].mean(1))
        sums = [self.known[rows].sum(1) for rows in near]
        return max(
            self.gain(lambda i, a=a: (sums[i] + a * self.mean) / (sums[i].sum(1, keepdim=True) + a))
            for a in PRIORS
        )

    def of_near_cells(self, numbers: Sequence[int] = (8, 15, 30, 60, 120)) -> float:
        """Gain of the mean of the nearest visible cells in space, where whole cells are hidden.

        With the number of cells and the prior that suit best.
        """
        x = self.x if self.counted else self.truth
        pos = self.data.pos.numpy()
        near = []
        for hidden in self.hidden:
            rows = (~hidden.any(1)).nonzero().squeeze(1)
            _, found = cKDTree(pos[rows]).query(pos, min(max(numbers), len(rows)))
            near.append(rows[torch.from_numpy(found)])  # [N, K]

        def shares(i: int, k: int, prior: float) -> Tensor:
            rows = near[i][:, :k]
            sums = x[rows].sum(1)
            size = sums.sum(1, keepdim=True) if self.counted else rows.size(1)
            return (sums + prior * self.mean) / (size + prior)

        return max(self.gain(lambda i, k=k, a=a: shares(i, k, a)) for k in numbers for a in PRIORS)

    def of_ridge(self) -> float:
        """Gain of ridge regression on the start, with the floor of shares that suits best."""
        share = self.values
        if self.counted:
            share = self.known / self.known.sum(1, keepdim=True).clamp(min=1)
        fitted = RidgeCV(np.logspace(-3, 5, 17)).fit(self.z.numpy(), share.numpy())
        guess = [torch.as_tensor(fitted.predict(z.numpy())).float() for z in self.z_test]
        if not self.counted:
            return self.gain(guess.__getitem__)

        def shares(i: int, floor: float) -> Tensor:
            found = torch.maximum(guess[i], floor * self.mean)
            return found / found.sum(1, keepdim=True)

        return max(self.gain(lambda i, f=floor: shares(i, f)) for floor in FLOORS)

    @cached_property
    def _of_mean(self) -> list[float]:
        return [self._likelihood(self.mean.expand_as(self.x), h) for h in self.hidden]

    def _likelihood(self, share: Tensor, hidden: Tensor) -> float:
        """Mean log-likelihood of the hidden entries, each gene with its best dispersion."""
        entries = hidden.sum(0).clamp(min=1)
        if not self.counted:
            error = ((self.truth - share).square() * hidden).sum(0) / entries
            best = -0.5 * (error.clamp(min=1e-6).log() + 1)
            return float((best * hidden.sum(0)).sum() / hidden.sum())
        total = 0.0
        for genes in torch.arange(self.x.size(1)).split(64):
            x = self.x[:, genes, None]
            mu = (self.library * share[:, genes]).unsqueeze(2).clamp(min=1e-8)
            terms = torch.lgamma(x + THETA) - torch.lgamma(THETA) - torch.lgamma(x + 1)
            terms += THETA * (THETA / (THETA + mu)).log() + x * (mu / (THETA + mu)).log()
            total += float((terms * hidden[:, genes, None]).sum(0).max(1).values.sum())
        return total / float(hidden.sum())
