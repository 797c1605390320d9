"""Pre-training of SPATIA's binned branch: bins of some genes from the rest and from the cell."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data

from spatiagraph.losses.mean import masked_mean
from spatiagraph.models.spatia import Spatia
from spatiagraph.nn.binned_genes import BinnedGeneEncoder
from spatiagraph.nn.gene_sampling import SampledGenes
from spatiagraph.nn.mixture_of_experts import MixtureOfExperts
from spatiagraph.nn.start import ProfileStart
from spatiagraph.nn.token_cell import CellStreams, TokenCellEncoder
from spatiagraph.tasks.objective import Objective, ObjectiveTask
from spatiagraph.tasks.spatia import cell_objectives as cells
from spatiagraph.tasks.spatia.corruption import Corruption
from spatiagraph.tasks.spatia.view import SpatiaView
from spatiagraph.tasks.streams import Streams

RATIOS = (0.25, 0.5, 0.75)
"""Shares of the genes of a step that are to be generated; one is sampled for each step."""


@dataclass(frozen=True)
class BinnedWeights:
    """Weight of each objective of the binned branch; 0 leaves it out.

    Attributes:
        generated: Squared error of bins of which the input has but the gene.
        masked: Squared error of bins that the input hides.
        cell_bins: Squared error of all bins from the cell and the genes alone (MVC).
        labels: Cross-entropy of labels, each read from ``<cls>``.
        masked_image: Hidden patches of the crop, which saw the genes.
    """

    generated: float = 1.0
    masked: float = 1.0
    cell_bins: float = 1.0
    labels: float = 1.0
    masked_image: float = 1.0

    def __post_init__(self) -> None:
        negative = [name for name, weight in asdict(self).items() if not weight >= 0]
        if negative:
            raise ValueError(f"Expected weights of 0 or more, got less for {', '.join(negative)}")


class BinnedView(SpatiaView):
    """Forward passes of one batch, in which some genes have no bin.

    Args:
        model: A model with a :class:`~spatiagraph.nn.BinnedGeneEncoder`.
        batch: The batch.
        streams: Random streams of the step.
        corruption: Shares of masked bins (``value_ratio``) and of modalities that are dropped.
        ratios: Shares of the genes of a cell that are to be generated, one drawn for the batch.
    """

    def __init__(
        self,
        model: Spatia,
        batch: Data,
        streams: Streams,
        corruption: Corruption,
        ratios: Sequence[float] = RATIOS,
    ):
        super().__init__(model, batch, streams, corruption)
        self.ratios = ratios
        self._hidden: tuple[Tensor, Tensor] | None = None

    @cached_property
    def streams(self) -> CellStreams | None:
        """Streams of cells of which some genes are to be generated, and others hidden."""
        if self.batch.get("z") is not None:
            return None
        given = self.model.cells(self.batch)
        gene_present = image_mask = None
        if given.x is not None and given.image is not None:
            gene_present, image_mask = self._kept_modalities(given)
        elif given.image is not None:
            image_mask = given.image_mask
        shown = given._replace(gene_present=gene_present, image_mask=image_mask)
        return self.model.cell_encoder.streams(shown, self.random["tokens"], hide=self._hide)

    def _hide(self, sampled: SampledGenes) -> tuple[Tensor, Tensor]:
        shape, device = sampled.ids.shape, sampled.ids.device
        number = torch.randint(len(self.ratios), (), generator=self.random["ratio"], device=device)
        ratio = torch.tensor(self.ratios, device=device)[number]
        chance = torch.rand(shape, generator=self.random["genes"], device=device)
        named = chance < ratio
        # of the same draw: a share of what is left
        masked = ~named & (chance < ratio + self.corruption.value_ratio * (1 - ratio))
        if sampled.pad is not None:
            named, masked = named & ~sampled.pad, masked & ~sampled.pad
        self._hidden = masked, named
        return self._hidden

    @property
    def masked(self) -> Tensor:
        """Sampled genes whose bin was hidden, ``[N, L]``."""
        assert self._hidden is not None  # the streams are there
        return self._hidden[0]

    @property
    def named(self) -> Tensor:
        """Sampled genes of which but the name was known, ``[N, L]``."""
        assert self._hidden is not None
        return self._hidden[1]

    @cached_property
    def bins(self) -> Tensor:
        """Bins of the sampled genes, ``[N, L]``."""
        assert self.streams is not None
        assert self.streams.sampled is not None
        return token_encoder(self.model).values(self.streams.sampled)

    @cached_property
    def gene_stream(self) -> Tensor | None:
        """Gene stream after fusion, ``[N, 1 + L, d]``; ``None`` where no genes are read."""
        return None if self.streams is None else self.streams.genes


class HiddenBins(Objective[BinnedView]):
    """Bins that the input does not have, from the tokens of their genes.

    Args:
        name: ``"generated"`` or ``"masked"``.
        weight: Factor of the term.
        decoder: Tokens ``[..., d]`` → bins ``[..., 1]``.

    Raises:
        ValueError: If the name is another.
    """

    def __init__(self, name: str, weight: float, decoder: nn.Module):
        if name not in ("generated", "masked"):
            raise ValueError(f"Expected 'name' generated or masked, got {name!r}")
        self.name = name
        super().__init__(weight)
        self.decoder = decoder

    def forward(self, view: BinnedView) -> Tensor | None:
        stream = view.gene_stream
        if stream is None:
            return None
        asked = view.named if self.name == "generated" else view.masked
        found = self.decoder(stream[:, 1:]).squeeze(-1)
        return masked_mean((found - view.bins).square(), asked & view.core_with_genes[:, None])


class CellBins(Objective[BinnedView]):
    r"""Bins of all sampled genes from the cell and what the genes are, as a product of both.

    .. math::
        \hat b_{ig} = \mathbf{W} \mathbf{h}_i^{\langle cls \rangle} \cdot
        \sigma(\mathbf{V} \mathbf{e}_g)

    Args:
        weight: Factor of the term.
        channels: Size of a token.
    """

    name = "cell_bins"

    def __init__(self, weight: float, channels: int):
        super().__init__(weight)
        self.of_gene = nn.Linear(channels, channels)
        self.of_cell = nn.Linear(channels, channels, bias=False)

    def forward(self, view: BinnedView) -> Tensor | None:
        stream, genes = view.gene_stream, view.model.cell_encoder.genes
        if stream is None or not isinstance(genes, BinnedGeneEncoder):
            return None
        assert view.streams is not None
        assert view.streams.sampled is not None
        ids, pad = view.streams.sampled.ids, view.streams.sampled.pad
        query = self.of_gene(genes.embed_genes(ids)).sigmoid()  # [N, L, d]
        found = (query @ self.of_cell(stream[:, 0]).unsqueeze(2)).squeeze(2)
        scored = view.core_with_genes.unsqueeze(1).expand_as(found)
        scored = scored if pad is None else scored & ~pad
        return masked_mean((found - view.bins).square(), scored)


class LabelCrossEntropy(Objective[BinnedView]):
    """Labels of a cell, each by a classifier on ``<cls>``.

    Labels that are branches of a hierarchy teach nothing.
    """

    name = "labels"

    def forward(self, view: BinnedView) -> Tensor | None:
        classifiers, stream = view.model.heads.classifiers, view.gene_stream
        if stream is None or not len(classifiers) or "labels" not in view.batch:
            return None
        labels = view.batch.labels.masked_fill(~view.core_with_genes.unsqueeze(1), -1)
        terms = []
        for classifier, label in zip(classifiers, labels.unbind(1), strict=True):
            logits = classifier(stream[:, 0]).float()
            leaf = label.masked_fill(label >= logits.size(1), -1)
            loss = cross_entropy(logits, leaf, ignore_index=-1, reduction="none")
            terms.append(masked_mean(loss, leaf >= 0))
        return torch.stack(terms).sum()


class BinnedPretraining(ObjectiveTask[BinnedView]):
    r"""The objectives of SPATIA's binned branch on one batch, each with its weight.

    In each step a share of the expressed genes of a cell, one of 0.25, 0.5 and 0.75, is known by
    name alone and to be generated, and some bins of the others are hidden: squared errors of both,
    of all bins from the cell (MVC), cross-entropy of labels, and hidden patches of the image. After
    `SPATIA <https://arxiv.org/abs/2507.04704>`_ and `scGPT
    <https://doi.org/10.1038/s41592-024-02201-0>`_.

    Args:
        model: A model with a :class:`~spatiagraph.nn.BinnedGeneEncoder`.
        weights: Weight of each objective; 1 each when not given.
        corruption: Shares of masked bins (``value_ratio``) and of modalities that are dropped.
        ratios: Shares of the genes that are to be generated, one drawn for each step.
        objectives: The terms, in place of those of ``weights``.
        seed: Seed of the decoders.

    Raises:
        ValueError: If the model does not read bins, or a ratio is no share.
    """

    model: Spatia

    def __init__(
        self,
        model: Spatia,
        weights: BinnedWeights | None = None,
        *,
        corruption: Corruption | None = None,
        ratios: Sequence[float] = RATIOS,
        objectives: list[Objective[BinnedView]] | None = None,
        seed: int = 0,
    ):
        genes = model.cell_encoder.genes
        if not isinstance(genes, BinnedGeneEncoder):
            raise ValueError(
                "Expected a model with a BinnedGeneEncoder, got one of "
                f"{type(genes).__name__}: SpatiaPretraining is for those of counts"
            )
        if not ratios or not all(0 < ratio < 1 for ratio in ratios):
            raise ValueError(f"Expected 'ratios' between 0 and 1, got {list(ratios)}")
        if objectives is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                objectives = binned_objectives(genes.channels, weights or BinnedWeights())
        super().__init__(model, objectives)
        self.corruption = Corruption() if corruption is None else corruption
        self.ratios = tuple(ratios)

    def view(self, batch: Data, streams: Streams) -> BinnedView:
        return BinnedView(self.model, batch, streams, self.corruption, self.ratios)


def binned_objectives(channels: int, weights: BinnedWeights) -> list[Objective[BinnedView]]:
    """The objectives of the binned branch; both errors of hidden bins share a mixture of experts.

    Args:
        channels: Size of a gene token.
        weights: Weight of each.
    """
    decoder = MixtureOfExperts(channels)
    found: list[Objective[BinnedView]] = [
        HiddenBins("generated", weights.generated, decoder),
        HiddenBins("masked", weights.masked, decoder),
        CellBins(weights.cell_bins, channels),
        LabelCrossEntropy(weights.labels),
        cells.MaskedImage(weights.masked_image),  # type: ignore[list-item]
    ]
    return found


def token_encoder(model: Spatia) -> TokenCellEncoder:
    """The encoder of tokens of a model, without what it starts from."""
    encoder = model.cell_encoder
    return encoder.encoder if isinstance(encoder, ProfileStart) else encoder
