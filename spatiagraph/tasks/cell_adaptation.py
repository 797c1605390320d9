"""Adaptation of an encoder of ranked genes to a technology: masked genes, two views of a cell."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data

from spatiagraph.data.vocabulary import GeneVocabulary
from spatiagraph.losses.info_nce import info_nce_loss
from spatiagraph.models.stofm import SToFM
from spatiagraph.nn.rank_encoder import RankEncoder, padded_tokens
from spatiagraph.tasks.objective import Objective, ObjectiveTask
from spatiagraph.tasks.streams import Streams


class MaskedTokens(NamedTuple):
    """Tokens of which some are to be predicted.

    Attributes:
        ids: Token ids after masking, ``[n, L]``.
        selected: Tokens to be predicted, ``[n, L]``.
    """

    ids: Tensor
    selected: Tensor


def mask_gene_tokens(
    ids: Tensor,
    vocabulary: GeneVocabulary,
    ratio: float,
    generator: torch.Generator | None = None,
) -> MaskedTokens:
    """Select genes to be predicted: 80 % are masked, 10 % replaced by any gene, 10 % left, as BERT.

    Args:
        ids: Token ids, ``[n, L]``; only those of genes are selected.
        vocabulary: The vocabulary they are of.
        ratio: Share of the genes that is selected.
        generator: Source of the choice.

    Examples:
        >>> vocabulary = GeneVocabulary(["A", "B"])
        >>> mask_gene_tokens(torch.tensor([[4, 2, 3, 0]]), vocabulary, 1.0).selected
        tensor([[False,  True,  True, False]])
    """
    genes = vocabulary.ranges["gene"]
    is_gene = (ids >= genes.start) & (ids < genes.stop)

    def chance() -> Tensor:
        return torch.rand(ids.shape, generator=generator, device=ids.device)

    selected, fate = is_gene & (chance() < ratio), chance()
    other = genes.start + (chance() * len(genes)).long().clamp(max=len(genes) - 1)
    masked = torch.where(selected & (fate < 0.8), vocabulary.token("<mask>"), ids)
    return MaskedTokens(torch.where(selected & (fate >= 0.9), other, masked), selected)


class AdaptationView(NamedTuple):
    """Two views of the same cells, with other genes masked in each.

    Attributes:
        states: States of the tokens to be predicted, of both views, ``[M, C]``.
        target: Their ids, ``[M]``.
        vectors: Unit vectors of the cells in each view, ``[n, C]`` twice.
    """

    states: Tensor
    target: Tensor
    vectors: tuple[Tensor, Tensor]


class MaskedGeneTokens(Objective[AdaptationView]):
    """Genes that were masked, among all tokens; mean cross entropy.

    Args:
        encoder: The encoder, whose embeddings of tokens are those of the answers.
        weight: Factor of the term.
    """

    name = "masked_tokens"

    def __init__(self, encoder: RankEncoder, weight: float = 1.0):
        super().__init__(weight)
        self.encoder = encoder
        channels, num_tokens = encoder.channels, encoder.token.num_embeddings
        self.head = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.LayerNorm(channels))
        self.shift = nn.Parameter(torch.zeros(num_tokens))

    def forward(self, view: AdaptationView) -> Tensor:
        if not view.target.numel():  # no cell of the batch has two genes
            return 0 * self.shift.sum()
        logits = self.head(view.states) @ self.encoder.token.weight.T + self.shift
        return cross_entropy(logits, view.target)


class TwoViews(Objective[AdaptationView]):
    """Contrast of cells: the two views of one cell among those of a batch.

    Args:
        weight: Factor of the term.
        temperature: Of the similarities.
    """

    name = "two_views"

    def __init__(self, weight: float = 1.0, temperature: float = 0.05):
        super().__init__(weight)
        self.temperature = temperature

    def forward(self, view: AdaptationView) -> Tensor:
        if not len(view.vectors[0]):
            return view.vectors[0].sum()
        return info_nce_loss(*view.vectors, temperature=self.temperature)


class CellAdaptation(ObjectiveTask[AdaptationView]):
    """Adaptation of the encoder of ranked genes of a SToFM to slides, before any context.

    Masked gene modelling and a contrast of two views, as the domain adaptation of SToFM.
    :class:`SToFMPretraining` freezes the encoder again.

    Args:
        model: A model with a :class:`~spatiagraph.nn.RankEncoder`.
        gene_weight: Weight of :class:`MaskedGeneTokens`.
        contrast_weight: Weight of :class:`TwoViews`; 1 as published. On one slide it takes from
            ranked genes what they say of types (docs: SToFM, what it gives), so it is out.
        mask_ratio: Share of the genes of a cell to predict.
        temperature: Of the contrast.
        max_cells: Cells of a batch that are looked at, at most.
        seed: Seed of the head.

    Raises:
        ValueError: If the model reads no ranked genes, or the share is not inside (0, 1).
    """

    model: SToFM

    def __init__(
        self,
        model: SToFM,
        *,
        gene_weight: float = 1.0,
        contrast_weight: float = 0.0,
        mask_ratio: float = 0.15,
        temperature: float = 0.05,
        max_cells: int = 128,
        seed: int = 0,
    ):
        encoder, vocabulary = model.cell_encoder, model.panel
        if not (isinstance(encoder, RankEncoder) and isinstance(vocabulary, GeneVocabulary)):
            raise ValueError(
                f"Expected a model with a RankEncoder and a GeneVocabulary, got "
                f"{type(encoder).__name__} and {type(vocabulary).__name__}: nothing to be adapted"
            )
        if not 0 < mask_ratio < 1:
            raise ValueError(f"Expected 'mask_ratio' between 0 and 1, got {mask_ratio}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            genes = MaskedGeneTokens(encoder, gene_weight)
        super().__init__(model, [genes, TwoViews(contrast_weight, temperature)])
        self.mask_ratio, self.max_cells = mask_ratio, max_cells
        self.encoder, self.vocabulary = encoder.requires_grad_(True), vocabulary

    def view(self, batch: Data, streams: Streams) -> AdaptationView:
        tokens = batch.gene_ids
        length = tokens.crow_indices().diff()
        rows = (batch.core & (length > 1)).nonzero().squeeze(1)
        order = torch.randperm(len(rows), generator=streams["cells"], device=rows.device)
        rows = rows[order[: self.max_cells]]
        rows = rows[length[rows].argsort(stable=True)]  # like lengths share a chunk
        if not len(rows):
            none = self.encoder.token.weight.new_zeros(0, self.encoder.channels)
            vectors_of_none = self.encoder.vectors(none)
            return AdaptationView(none, rows, (vectors_of_none, vectors_of_none))
        generator = streams["genes"]
        states: list[Tensor] = []
        target: list[Tensor] = []
        vectors: list[Tensor] = []
        for _ in range(2):
            first = []
            for chunk in rows.split(self.encoder.chunk_size):
                ids, real = padded_tokens(tokens, chunk, self.encoder.pad)
                masked = mask_gene_tokens(ids, self.vocabulary, self.mask_ratio, generator)
                h = self.encoder.states(masked.ids, real)
                first.append(h[:, 0])
                states.append(h[masked.selected])
                target.append(ids[masked.selected])
            vectors.append(self.encoder.vectors(torch.cat(first)))
        return AdaptationView(torch.cat(states), torch.cat(target), (vectors[0], vectors[1]))
