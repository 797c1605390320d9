"""Pre-training of SPATIA: cells rebuild what was taken from them, context what it hides."""

from dataclasses import asdict, dataclass, replace

import torch
from torch_geometric.data import Data

from spatiagraph.models.base import SlideModel
from spatiagraph.models.spatia import Spatia
from spatiagraph.nn.binned_genes import BinnedGeneEncoder
from spatiagraph.tasks.base import Task
from spatiagraph.tasks.objective import Objective, ObjectiveTask
from spatiagraph.tasks.spatia import cell_objectives as cells
from spatiagraph.tasks.spatia import context_objectives as context
from spatiagraph.tasks.spatia.binned import BinnedPretraining
from spatiagraph.tasks.spatia.corruption import Corruption
from spatiagraph.tasks.spatia.view import SpatiaView
from spatiagraph.tasks.streams import Streams


@dataclass(frozen=True)
class SpatiaWeights:
    """Weight of each objective; 0 leaves it out and saves what it would cost.

    From ``cross_modal`` on objectives and weights are ours; the others, where on, are published.

    Attributes:
        denoise: Counts of a cell from its gene tokens, which saw less of them.
        bottleneck: The same from its cell tokens and the names of the genes alone.
        masked_image: Hidden patches of the crop from the image tokens, which saw the genes.
        classification: Labels, each from its own token.
        diversity: Tokens of one cell should differ.
        label_adversary: A label should not be readable from the tokens of the others.
        source_adversary: The data set should not be readable from a cell.
        token_source_adversary: The data set should not be readable from the label tokens, as
            published.
        cell_contrast: A cell should be the same in both passes; published with 0.002, and off.
        elastic_similarity: Cells of a batch should be alike or not at all; published with 0.05, and
            off.
        cross_modal: Which image belongs to which genes.
        expression: Counts that were hidden, of genes or of whole cells, from the embedding in
            context.
        niche_profile: Mean expression of a niche from its embedding.
        masked_cells: Cells hidden from their niche, from what is around them. Off, as is the next:
            what is easy to predict is not what tells niches apart, and search lost by it.
        masked_niches: Niches hidden from their region.
    """

    denoise: float = 1.0
    bottleneck: float = 1.0
    masked_image: float = 1.0
    classification: float = 1.5
    diversity: float = 0.2
    label_adversary: float = 0.0
    source_adversary: float = 0.0
    token_source_adversary: float = 0.0
    cell_contrast: float = 0.0
    elastic_similarity: float = 0.0
    cross_modal: float = 0.1
    expression: float = 1.0
    niche_profile: float = 0.5
    masked_cells: float = 0.0
    masked_niches: float = 0.0

    def __post_init__(self) -> None:
        negative = [name for name, weight in asdict(self).items() if not weight >= 0]
        if negative:
            raise ValueError(f"Expected weights of 0 or more, got less for {', '.join(negative)}")


class SpatiaPretraining(ObjectiveTask[SpatiaView], pretrains=Spatia):
    r"""The objectives of SPATIA on one batch, each with its weight.

    Objectives that a model or batch has nothing for (images, labels, a second modality) are left
    out; on cached cell embeddings (``batch.z``) that is everything below the niche. Whatever is
    random is drawn from a stream of its own, so that one objective does not change another. For
    other terms, pass a list of :class:`~spatiagraph.tasks.Objective` that look at a
    :class:`~spatiagraph.tasks.spatia.SpatiaView`. Cells of a
    :class:`~spatiagraph.nn.BinnedGeneEncoder` are pre-trained by :class:`BinnedPretraining`.

    Args:
        model: The model to train.
        weights: Weight of each objective; when not given those of :class:`SpatiaWeights`: published
            ones, and ours of the objectives that are ours.
        corruption: How much is taken from the input.
        num_sources: Slides to tell apart, for the adversaries of the source.
        objectives: The terms, in place of those of ``weights``.
        seed: Seed of the heads that only training needs.

    Raises:
        ValueError: If an adversary has nothing to tell apart.
    """

    model: Spatia
    takes_cached_cells = True

    def __init__(
        self,
        model: Spatia,
        weights: SpatiaWeights | None = None,
        *,
        corruption: Corruption | None = None,
        num_sources: int = 0,
        objectives: list[Objective[SpatiaView]] | None = None,
        seed: int = 0,
    ):
        if objectives is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                objectives = spatia_objectives(model, weights or SpatiaWeights(), num_sources)
        super().__init__(model, objectives)
        self.corruption = Corruption() if corruption is None else corruption

    @classmethod
    def for_model(cls, model: SlideModel, *, seed: int = 0, cached_cells: bool = False) -> Task:
        """Task that pre-trains a model: this one, or that of bins where cells are read as bins.

        Args:
            model: A :class:`~spatiagraph.models.Spatia`.
            seed: Seed of what the task itself learns.
            cached_cells: Whether cells are encoded once: context learns from this task alone.
        """
        assert isinstance(model, Spatia)
        if isinstance(model.cell_encoder.genes, BinnedGeneEncoder) and not cached_cells:
            return BinnedPretraining(model, seed=seed)
        return cls(model, seed=seed)

    def view(self, batch: Data, streams: Streams) -> SpatiaView:
        weights = self.weights
        corruption = replace(
            self.corruption,
            cells=self.corruption.cells
            and any(weights.get(name, 0) > 0 for name in ("masked_cells", "expression")),
            groups=self.corruption.groups and weights.get("masked_niches", 0) > 0,
        )
        return SpatiaView(self.model, batch, streams, corruption)


def spatia_objectives(
    model: Spatia, weights: SpatiaWeights, num_sources: int = 0
) -> list[Objective[SpatiaView]]:
    """The objectives of SPATIA, and the loss of learned poolings where there are any.

    Args:
        model: The model to train.
        weights: Weight of each.
        num_sources: Slides to tell apart, for the adversaries of the source.

    Raises:
        ValueError: If an adversary has nothing to tell apart.
    """
    channels, labels = model.context_encoder.channels, model.labels
    below = [] if labels is None else list(labels.descendants)
    found: list[Objective[SpatiaView]] = [
        cells.Denoise(weights.denoise),
        cells.Bottleneck(weights.bottleneck),
        cells.MaskedImage(weights.masked_image),
        cells.Classification(weights.classification, below),
        cells.Diversity(weights.diversity),
        cells.CrossModal(weights.cross_modal),
        cells.CellContrast(weights.cell_contrast),
        cells.ElasticSimilarity(weights.elastic_similarity),
        context.Expression(weights.expression),
        context.NicheProfile(weights.niche_profile),
        context.MaskedCells(weights.masked_cells, channels),
        context.MaskedNiches(weights.masked_niches, channels),
    ]
    if any(level.pool.assigns for level in model.context_encoder.levels):
        found.append(context.Pooling())
    genes = model.cell_encoder.genes
    if weights.label_adversary > 0:
        if genes is None or labels is None:
            raise ValueError("Expected labels with genes to hide from each other, got none")
        found.append(
            cells.LabelAdversaries(
                weights.label_adversary, genes.channels, labels.num_classes, below
            )
        )
    if weights.source_adversary > 0:
        found.append(cells.SourceAdversaries(weights.source_adversary, channels, num_sources))
    if weights.token_source_adversary > 0:
        if genes is None or labels is None:
            raise ValueError("Expected labels with genes to hide the slide from, got none")
        found.append(
            cells.TokenSourceAdversaries(
                weights.token_source_adversary, genes.channels, num_sources
            )
        )
    return found
