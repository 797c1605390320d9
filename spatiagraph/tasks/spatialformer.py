"""Pre-training of SpatialFormer: hidden tokens, genes that lie together, cells that are neighbours.

All three read one forward pass over sequences of which some tokens are hidden.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch_geometric.data import Data

from spatiagraph.data.tokens import CellSequences
from spatiagraph.data.vocabulary import GeneVocabulary
from spatiagraph.losses.focal import focal_loss
from spatiagraph.losses.uncertainty import UncertaintyWeights
from spatiagraph.models.spatialformer import SpatialFormer
from spatiagraph.tasks.objective import Objective, ObjectiveTask
from spatiagraph.tasks.streams import Streams


class SpatialFormerView(NamedTuple):
    """Sequences of which some tokens were hidden, in context.

    Attributes:
        model: The model.
        batch: The batch.
        sequences: Sequences as they are.
        chosen: Tokens to be named, ``[B, L]``.
        hidden: Tokens in context, from sequences in which those are hidden, ``[B, L, D]``.
        streams: Random streams of the step.
    """

    model: SpatialFormer
    batch: Data
    sequences: CellSequences
    chosen: Tensor
    hidden: Tensor
    streams: Streams


def hide_tokens(
    sequences: CellSequences,
    vocabulary: GeneVocabulary,
    generator: torch.Generator | None = None,
    *,
    rate: float = 0.15,
    hide_metadata: bool = True,
) -> tuple[CellSequences, Tensor]:
    """Hide some genes and metadata: 8 of 10 by ``[MASK]``, 1 by another gene, 1 not at all.

    At least one token of every sequence is chosen.

    Args:
        sequences: The sequences.
        vocabulary: Their tokens.
        generator: Source of randomness.
        rate: Share of tokens that are chosen.
        hide_metadata: Whether tokens of metadata may be chosen.

    Returns:
        Sequences with hidden tokens, and which were chosen, ``[B, L]``.
    """
    tokens, device = sequences.tokens, sequences.tokens.device
    candidates = sequences.gene_mask
    if hide_metadata:
        meta = vocabulary.ranges["meta"]
        candidates = candidates | ((tokens >= meta.start) & (tokens < meta.stop))
    drawn = torch.rand(tokens.shape, generator=generator, device=device)
    drawn = drawn.masked_fill(~candidates, 2.0)
    chosen = drawn < rate
    chosen = chosen | ((drawn == drawn.amin(1, keepdim=True)) & ~chosen.any(1, keepdim=True))
    chosen = chosen & candidates
    kind = torch.rand(tokens.shape, generator=generator, device=device)
    genes = vocabulary.ranges["gene"]
    other = torch.randint(genes.start, genes.stop, tokens.shape, generator=generator, device=device)
    shown = torch.where(chosen & (kind < 0.8), vocabulary.token("[MASK]"), tokens)
    shown = torch.where(chosen & (kind >= 0.8) & (kind < 0.9), other, shown)
    return sequences._replace(tokens=shown), chosen


class HiddenTokens(Objective[SpatialFormerView]):
    """Names of hidden tokens; cross-entropy over the vocabulary, mean over them."""

    name = "tokens"

    def forward(self, view: SpatialFormerView) -> Tensor:
        logits = view.model.token_head(view.hidden[view.chosen])
        return cross_entropy(logits.float(), view.sequences.tokens[view.chosen])


class ColocalizedGenes(Objective[SpatialFormerView]):
    """Pairs of genes that lie together in a cell, against pairs that do not.

    Args:
        weight: Factor of the term.
        kind: ``"balanced"``: all that do and as many that do not, cross-entropy; ``"focal"``: all
            pairs.
    """

    name = "gene_pairs"

    def __init__(self, weight: float = 1.0, kind: Literal["balanced", "focal"] = "balanced"):
        super().__init__(weight)
        self.kind = kind

    def forward(self, view: SpatialFormerView) -> Tensor | None:
        together, known = colocalized(view.sequences, view.batch, view.model.vocabulary)
        if not bool(together.any()):
            return None
        genes, _ = view.sequences.take_genes(view.hidden)
        logits = view.model.gene_head(genes).float()
        if self.kind == "focal":
            return focal_loss(logits[known], together[known].float()).mean()
        apart = (known & ~together).nonzero()
        generator = view.streams["genes"]
        num = min(int(together.sum()), len(apart))
        order = torch.randperm(len(apart), generator=generator, device=generator.device)[:num]
        cell, a, b = apart[order].T
        both = torch.cat([logits[together], logits[cell, a, b]])
        target = torch.cat([torch.ones(len(both) - num), torch.zeros(num)]).to(both)
        return binary_cross_entropy_with_logits(both, target)


class NeighborCells(Objective[SpatialFormerView]):
    """Neighbours or not, two cells at a time; both answers weigh the same."""

    name = "cell_pairs"

    def forward(self, view: SpatialFormerView) -> Tensor | None:
        if view.sequences.start.size(1) == 1:
            return None
        label = view.batch.pair_label.long()
        yes = label.sum().clamp(min=1)
        weight = torch.stack([torch.ones_like(yes), (len(label) - yes).clamp(min=1) / yes])
        logits = view.model.neighbor_logits(view.sequences, view.hidden)
        return cross_entropy(logits, label, weight=weight.float())


class SpatialFormerPretraining(ObjectiveTask[SpatialFormerView], pretrains=SpatialFormer):
    """The three objectives of SpatialFormer, weighted by learned uncertainties.

    Those that rest on labels fade over a run, so that what remains is the language of genes.
    Validation sums the terms as they are.

    Args:
        model: The model.
        pairs: Two cells at a time; else one, without the third objective: for embeddings, the
            second half of the published training.
        genes: Objective on pairs of genes.
        faded: Terms that fade.
        hide_metadata: Whether tokens of metadata may be hidden.
        rate: Share of tokens that are hidden.
        seed: Not used: nothing is learned beside the model but three scalars.
    """

    def __init__(
        self,
        model: SpatialFormer,
        *,
        pairs: bool = True,
        genes: ColocalizedGenes | None = None,
        faded: tuple[str, ...] = ("gene_pairs", "cell_pairs"),
        hide_metadata: bool = True,
        rate: float = 0.15,
        seed: int = 0,
    ):
        genes = ColocalizedGenes() if genes is None else genes
        super().__init__(model, [HiddenTokens(), genes, NeighborCells()])
        self.model: SpatialFormer = model
        self.pairs, self.rate, self.hide_metadata = pairs, rate, hide_metadata
        self.uncertainty = UncertaintyWeights(list(self.weights), faded)
        self.fade = 1.0

    def at_step(self, step: int, num_steps: int) -> None:
        """Set the weights that decay over training to those of a step."""
        self.fade = self.uncertainty.fade(step, num_steps)

    def view(self, batch: Data, streams: Streams) -> SpatialFormerView:
        """Hide tokens of the pairs of a batch, or of its cells, and encode what is left."""
        if self.pairs:
            sequences = self.model.sequences(batch, *batch.pair_index)
        else:
            rows = torch.arange(batch.num_nodes, device=batch.core.device)
            sequences = self.model.sequences(batch, rows)
        shown, chosen = hide_tokens(
            sequences,
            self.model.vocabulary,
            streams["tokens"],
            rate=self.rate,
            hide_metadata=self.hide_metadata,
        )
        return SpatialFormerView(
            self.model, batch, sequences, chosen, self.model.encode(shown), streams
        )

    def combine(self, values: Mapping[str, Tensor]) -> Tensor:
        if not self.training:
            return super().combine(values)
        weights = self.weights
        scaled = {name: weights[name] * value for name, value in values.items()}
        return self.uncertainty(scaled, self.fade)


def colocalized(
    sequences: CellSequences, batch: Data, vocabulary: GeneVocabulary
) -> tuple[Tensor, Tensor]:
    """Pairs of genes of each cell by their ranks.

    Args:
        sequences: Sequences of the cells of a batch.
        batch: The batch, with ``colocalized``.
        vocabulary: Their tokens.

    Returns:
        Pairs that lie together, and all pairs of cells that have any, each once with the lower rank
        first: ``[S * B, n, n]`` bool both.
    """
    genes, real = sequences.take_genes(sequences.tokens)
    num, width = genes.shape
    rank = torch.full((num, vocabulary.num_tokens), -1, device=genes.device)
    place = torch.arange(width, device=genes.device).expand_as(genes)
    cell, at = real.nonzero().T
    rank[cell, genes[cell, at]] = place[cell, at]
    codes = batch.colocalized
    ptr, values = codes.crow_indices(), codes.values()
    rows = sequences.cells.T.flatten()
    size = (ptr[1:] - ptr[:-1])[rows]
    cell = torch.arange(num, device=genes.device).repeat_interleave(size)
    start = ptr[:-1][rows] - (size.cumsum(0) - size)
    code = values[torch.arange(len(cell), device=genes.device) + start[cell]]
    ends = torch.stack([code // vocabulary.num_tokens, code % vocabulary.num_tokens])
    ranks = rank[cell, ends].sort(0).values
    kept = ranks[0] >= 0
    together = torch.zeros(num, width, width, dtype=torch.bool, device=genes.device)
    together[cell[kept], ranks[0, kept], ranks[1, kept]] = True
    known = real[:, :, None] & real[:, None] & together.any(2).any(1)[:, None, None]
    return together, known & (place[:, :, None] < place[:, None])
