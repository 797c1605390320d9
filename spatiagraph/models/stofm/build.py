"""Parts of SToFM in a size, for the genes of some slides."""

import math
from collections.abc import Sequence
from typing import Literal

from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import KNN, Ranks, Recipe
from spatiagraph.data.slide import Slide
from spatiagraph.data.vocabulary import GeneVocabulary
from spatiagraph.models.base import sample_of_cells
from spatiagraph.models.stofm.size import SToFMSize
from spatiagraph.models.stofm.slices import SubSlices
from spatiagraph.nn.rank_encoder import ProfileEncoder, RankEncoder
from spatiagraph.nn.se2_transformer import SE2Transformer

_SAMPLE = 10_000  # cells of a slide that principal components are taken from


def context_encoder(size: SToFMSize, *, far: float | None = None) -> SE2Transformer:
    """SE(2) transformer of a size.

    Args:
        size: Its width and depth.
        far: See :class:`~spatiagraph.nn.SE2Transformer`.
    """
    return SE2Transformer(
        size.cell_channels,
        size.channels,
        size.num_layers,
        size.heads,
        num_kernels=size.num_kernels,
        hidden_channels=size.hidden_channels,
        dropout=size.dropout,
        far=far,
    )


def kernel_scale(slides: Sequence[Slide], slices: SubSlices) -> float:
    r"""Factor of distances at which kernels start to resolve the known ones, :math:`w`.

    Kernels start between 0 and 3. Known distances end at about four mean spacings of cells, or
    where all are known at the size of a sub-slice; in positions whose diagonal is 100 both depend
    on the number of cells.

    Args:
        slides: The slides.
        slices: How they are cut.
    """
    num_cells = max(1.0, sum(slide.num_cells for slide in slides) / max(1, len(slides)))
    if slices.norm == "none":
        return 1.0
    share = min(1.0, slices.max_cells / num_cells)
    spacings = math.sqrt((slices.num_neighbors + 1) / math.pi)
    reach = 100 * math.sqrt(share) if slices.dense else 71 * spacings / math.sqrt(num_cells)
    return 3 / reach


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
    panel: GenePanel,
    seed: int,
) -> tuple[Recipe, ProfileEncoder | RankEncoder]:
    """Recipe of some slides, and an encoder of the cells that it gives.

    Args:
        slides: The slides.
        size: Width and depth of the encoder.
        cells: Kind of the encoder.
        panel: Genes to read; of ranks, as tokens, with the usual levels of these slides where
            they are not known.
        seed: Seed of the sample of cells that principal components are taken from.

    Raises:
        ValueError: If there is no such kind, or slides hold no counts to rank.
    """
    if cells == "profile":
        profile = ProfileEncoder(len(panel), size.cell_channels)
        profile.initialize(*sample_of_cells(panel, slides, _SAMPLE, seed), seed=seed)
        return Recipe(panel, graph=KNN(8), levels=()), profile
    if cells != "ranks":
        raise ValueError(f'Expected cells "profile" or "ranks", got {cells!r}')
    if not isinstance(panel, GeneVocabulary):
        panel = GeneVocabulary(panel.symbols, panel.gene_ids)
    vocabulary = panel if panel.medians is not None else panel.fitted(slides)
    recipe = Recipe(vocabulary, graph=KNN(8), levels=(), tokens=Ranks(start="<cls>"))
    return recipe, rank_encoder(size, vocabulary.num_tokens)
