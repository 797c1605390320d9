"""Parts of SToFM in a size, for the genes of some slides."""

from collections.abc import Sequence
from typing import Literal

from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import KNN, Ranks, Recipe
from spatiagraph.data.slide import Slide
from spatiagraph.data.vocabulary import GeneVocabulary
from spatiagraph.models.base import sample_of_cells
from spatiagraph.models.stofm.size import SToFMSize
from spatiagraph.nn.rank_encoder import ProfileEncoder, RankEncoder
from spatiagraph.nn.se2_transformer import SE2Transformer

_SAMPLE = 10_000  # cells of a slide that principal components are taken from


def context_encoder(size: SToFMSize) -> SE2Transformer:
    """SE(2) transformer of a size."""
    return SE2Transformer(
        size.cell_channels,
        size.channels,
        size.num_layers,
        size.heads,
        num_kernels=size.num_kernels,
        hidden_channels=size.hidden_channels,
        dropout=size.dropout,
    )


def rank_encoder(size: SToFMSize, num_tokens: int) -> RankEncoder:
    """Encoder of ranked genes of a size.

    Args:
        size: Its width and depth.
        num_tokens: Tokens of the vocabulary.
    """
    return RankEncoder(
        num_tokens,
        size.cell_channels,
        size.cell_layers,
        size.cell_heads,
        hidden_channels=size.cell_hidden,
        dropout=size.cell_dropout,
    )


def cell_parts(
    slides: Sequence[Slide],
    size: SToFMSize,
    cells: Literal["profile", "ranks"],
    *,
    num_genes: int | None,
    seed: int,
) -> tuple[Recipe, ProfileEncoder | RankEncoder]:
    """Recipe of some slides, and an encoder of the cells that it gives.

    Args:
        slides: The slides.
        size: Width and depth of the encoder.
        cells: Kind of the encoder.
        num_genes: Most variable genes to read; all when ``None``.
        seed: Seed of the sample of cells that principal components are taken from.

    Raises:
        ValueError: If there is no such kind, or slides hold no counts to rank.
    """
    panel = GenePanel.from_slides(slides, num_genes=num_genes)
    if cells == "profile":
        profile = ProfileEncoder(len(panel), size.cell_channels)
        profile.initialize(*sample_of_cells(panel, slides, _SAMPLE, seed), seed=seed)
        return Recipe(panel, graph=KNN(8), levels=()), profile
    if cells != "ranks":
        raise ValueError(f'Expected cells "profile" or "ranks", got {cells!r}')
    vocabulary = GeneVocabulary(panel.symbols, panel.gene_ids).fitted(slides)
    recipe = Recipe(vocabulary, graph=KNN(8), levels=(), tokens=Ranks(start="<cls>"))
    return recipe, rank_encoder(size, vocabulary.num_tokens)
