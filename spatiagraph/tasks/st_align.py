"""Pre-training of ST-Align: three contrasts, of images and genes at two scales and across them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch_geometric.data import Data

from spatiagraph.models.st_align import STAlign, Views
from spatiagraph.models.st_align.scale import Scale
from spatiagraph.tasks.base import Watched
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
        return max(0.0, 1 - (self.alpha + self.beta))  # 1 - 0.7 - 0.3 is not 0


class ScaleView:
    """One scale of a batch: its tokens, and their projections on first access.

    Args:
        scale: Encoders of the scale.
        image: Images of the spots.
        genes: Profiles of the spots.
        statistics: Features of the images that the scale starts from.

    Raises:
        ValueError: If images or genes are missing.
    """

    def __init__(
        self,
        scale: Scale,
        image: Tensor | None,
        genes: Tensor | None,
        statistics: Tensor | None = None,
    ):
        if image is None or genes is None:
            raise ValueError(
                "Expected slides with an image and with counts to align, got one of them alone"
            )
        self.scale, self._image, self._genes = scale, image, genes
        self._statistics = statistics

    @cached_property
    def image_tokens(self) -> Tensor:
        """Tokens of the images, ``[N, T, D]``."""
        return self.scale.image(self._image)

    @cached_property
    def gene_tokens(self) -> Tensor:
        """Tokens of the profiles, ``[N, T, D]``."""
        return self.scale.genes(self._genes)

    @cached_property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Image and genes, projected, ``[N, P]`` each."""
        image = self.scale.project_image(self.image_tokens, self._statistics)
        return image, self.scale.project_genes(self.gene_tokens, self._genes)

    @cached_property
    def fused(self) -> Tensor:
        """Both, fused and projected, ``[N, P]``."""
        return self.scale.fuse(self.image_tokens, self.gene_tokens, self._genes, self._statistics)


class STAlignView:
    """Both scales of the core spots of a batch, and their negatives.

    Args:
        model: The model.
        views: Views of the spots.
        negatives: Draws of negatives, as the rule made them.
        slide: Slide of each spot, ``[N]``.
    """

    def __init__(self, model: STAlign, views: Views, negatives: Tensor, slide: Tensor):
        self.spot = ScaleView(model.spot, *views[:2], views.spot_statistics)
        self.niche = ScaleView(model.niche, *views[2:4], views.niche_statistics)
        self.negatives = negatives
        self.slide = slide

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Images and genes of both scales side by side, each of length 1, ``[N, 2 P]``."""
        pairs = zip(self.spot.pair, self.niche.pair, strict=True)
        image, genes = (torch.cat([normalize(z, dim=1) for z in both], 1) for both in pairs)
        return image, genes


Score = Literal["recall@10", "image_recall@10", "loss"]
"""Score of a validation set."""
RECALL: Literal["recall@10"] = "recall@10"
"""Name of the score of all that is contrasted."""
IMAGE_RECALL: Literal["image_recall@10"] = "image_recall@10"
"""Name of the score of images and genes."""

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
        watched: Score of the validation set that training stops by. ``"image_recall@10"`` is the
            share of spots whose genes are among the first ten that their images find, of the spots
            of their slide in a batch, where these are more than ten. ``"recall@10"`` is the mean of
            that and of the same for niches that spots find, both fused, as far as they are
            contrasted. ``"loss"`` is also watched where no slide has so many spots.
        seed: Not read: nothing but the model learns.

    Raises:
        ValueError: If the temperature is not positive, or no such score is watched.
    """

    model: STAlign

    def __init__(
        self,
        model: STAlign,
        weights: STAlignWeights | None = None,
        *,
        negatives: Negatives | None = None,
        temperature: float = 0.1,
        watched: Score = RECALL,
        seed: int = 0,
    ):
        if watched not in get_args(Score):
            raise ValueError(
                f"Expected 'watched' among {', '.join(get_args(Score))}, got {watched!r}"
            )
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
        self.watched = Watched(watched, highest=watched != "loss")

    def measure(self, view: STAlignView) -> dict[str, Tensor]:
        image = retrieval_recall(*view.pair, view.slide)
        if bool(image.isnan()):
            return {}
        cross = self.weights["cross"]
        found = [image] if cross < 1 else []
        if cross:  # a start of images and genes says nothing of what is fused
            found.append(retrieval_recall(view.spot.fused, view.niche.fused, view.slide))
        return {RECALL: torch.stack(found).mean(), IMAGE_RECALL: image}

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
        return STAlignView(self.model, self.model.inputs(batch)[0], drawn, slide[core])


@torch.no_grad()
def retrieval_recall(query: Tensor, found: Tensor, slide: Tensor, k: int = 10) -> Tensor:
    """Share of spots whose own partner is among the ``k`` most similar of their slide, a scalar.

    Spots of slides with ``k`` spots or fewer are left out, whose partners are among them anyhow;
    NaN where all are of such.

    Args:
        query: Vectors that are searched with, ``[N, D]``.
        found: Vectors that are searched, ``[N, D]``.
        slide: Slide of each spot, ``[N]``.
        k: Candidates that are looked at.

    Examples:
        >>> retrieval_recall(torch.eye(3), torch.eye(3), torch.zeros(3), k=1)
        tensor(1.)
    """
    similarity = normalize(query.float(), dim=1) @ normalize(found.float(), dim=1).T
    similarity = similarity.masked_fill(slide != slide[:, None], -torch.inf)
    own = similarity.diagonal()[:, None]
    better, equal = (similarity > own).sum(1), (similarity == own).sum(1)
    rank = 1 + better + (equal - 1) / 2  # equal ones share the mean of their ranks
    known = own.squeeze(1).isfinite()  # a vector with NaN finds nothing
    told = (slide == slide[:, None]).sum(1) > k
    return ((rank <= k) & known)[told].float().mean()
