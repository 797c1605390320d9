"""Pre-training of ST-Align: three contrasts, of images and genes at two scales and across them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch_geometric.data import Data

from spatiagraph.models.st_align import STAlign, Views
from spatiagraph.models.st_align.scale import Scale
from spatiagraph.tasks.negatives import Negatives, PairedNegatives
from spatiagraph.tasks.objective import Objective, ObjectiveTask
from spatiagraph.tasks.streams import Streams


@dataclass(frozen=True)
class STAlignWeights:
    r"""Weights of the three contrasts: :math:`\alpha, \beta` and :math:`1 - \alpha - \beta`.

    Attributes:
        alpha: Image and genes of a spot.
        beta: Image and genes of a niche.

    Raises:
        ValueError: If a weight is negative.
    """

    alpha: float = 0.3
    beta: float = 0.3

    def __post_init__(self) -> None:
        if not (self.alpha >= 0 and self.beta >= 0 and self.alpha + self.beta <= 1 + 1e-9):
            raise ValueError(
                f"Expected 'alpha' and 'beta' of 0 or more and at most 1 together, got "
                f"{self.alpha} and {self.beta}"
            )

    @property
    def cross(self) -> float:
        """Weight of the contrast of spots and niches."""
        return max(0.0, 1 - self.alpha - self.beta)


class ScaleView:
    """One scale of a batch: its tokens, and their projections on first access.

    Args:
        scale: Encoders of the scale.
        image: Images of the spots.
        genes: Profiles of the spots.

    Raises:
        ValueError: If either is missing.
    """

    def __init__(self, scale: Scale, image: Tensor | None, genes: Tensor | None):
        if image is None or genes is None:
            raise ValueError(
                "Expected slides with an image and with counts to align, got one of them alone"
            )
        self.scale, self._image, self._genes = scale, image, genes

    @cached_property
    def image_tokens(self) -> Tensor:
        """Tokens of the images, ``[N, T, D]``."""
        return self.scale.image(self._image)

    @cached_property
    def gene_tokens(self) -> Tensor:
        """Tokens of the profiles, ``[N, T, D]``."""
        return self.scale.genes(self._genes)

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Image and genes, projected, ``[N, P]`` each."""
        scale = self.scale
        return scale.image_head(self.image_tokens), scale.gene_head(self.gene_tokens)

    @property
    def fused(self) -> Tensor:
        """Both, fused and projected, ``[N, P]``."""
        return self.scale.head(self.scale.fusion(self.image_tokens, self.gene_tokens))


class STAlignView:
    """Both scales of the core spots of a batch, and their negatives.

    Args:
        model: The model.
        views: Views of the spots.
        negatives: Draws of negatives, as the rule made them.
    """

    def __init__(self, model: STAlign, views: Views, negatives: Tensor):
        self.spot = ScaleView(model.spot, views.spot_image, views.spot_genes)
        self.niche = ScaleView(model.niche, views.niche_image, views.niche_genes)
        self.negatives = negatives


Pair = Callable[[STAlignView], tuple[Tensor, Tensor]]
"""Queries and positives of a contrast."""


class Contrast(Objective[STAlignView]):
    """Agreement of two vectors of each spot against those of its negatives.

    Args:
        name: Name of the term.
        weight: Factor of the term.
        pair: Queries and positives of a view.
        negatives: Rule of the negatives.
        temperature: Temperature of the contrast.
    """

    def __init__(
        self, name: str, weight: float, pair: Pair, negatives: Negatives, temperature: float
    ):
        self.name = name  # the base names it in a message
        super().__init__(weight)
        self.pair = pair
        self.negatives = negatives
        self.temperature = temperature

    def forward(self, view: STAlignView) -> Tensor:
        query, positive = self.pair(view)
        return self.negatives.loss(query, positive, view.negatives, self.temperature)


class STAlignPretraining(ObjectiveTask[STAlignView], pretrains=STAlign):
    r"""Three contrasts, :math:`\alpha L_{spot} + \beta L_{niche} + (1 - \alpha - \beta) L_{cross}`.

    All spots of a batch are encoded once, and are queries, positives and negatives of one another;
    the same negatives serve all three. What a weight of 0 leaves out is not computed.

    Args:
        model: The model to train.
        weights: Weights of the three.
        negatives: Which spots a spot is told from.
        temperature: Temperature of the contrasts.
        seed: Not read: nothing but the model learns.

    Raises:
        ValueError: If the temperature is not positive.
    """

    model: STAlign

    def __init__(
        self,
        model: STAlign,
        weights: STAlignWeights | None = None,
        *,
        negatives: Negatives | None = None,
        temperature: float = 0.1,
        seed: int = 0,
    ):
        if not temperature > 0:
            raise ValueError(f"Expected a 'temperature' above 0, got {temperature}")
        rule: Negatives = PairedNegatives() if negatives is None else negatives
        weigh = STAlignWeights() if weights is None else weights
        terms: list[tuple[str, float, Pair]] = [
            ("spot", weigh.alpha, lambda view: view.spot.pair),
            ("niche", weigh.beta, lambda view: view.niche.pair),
            ("cross", weigh.cross, lambda view: (view.spot.fused, view.niche.fused)),
        ]
        super().__init__(model, [Contrast(*term, rule, temperature) for term in terms])
        self.negatives = rule
        self.temperature = temperature

    def view(self, batch: Data, streams: Streams) -> STAlignView:
        if "cluster" not in batch:
            raise ValueError(
                "Expected clusters to draw negatives from, got none: prepare slides with "
                "model.prepare(slide, learn=True)"
            )
        core = batch.core
        slide = torch.zeros_like(batch.cluster)
        if batch.get("batch") is not None:  # of several parts, which may be of one slide
            slide = batch.slide[batch.batch]
        drawn = self.negatives.draw(batch.cluster[core], slide[core], streams["negatives"])
        return STAlignView(self.model, self.model.inputs(batch)[0], drawn)
