"""Tokens of SpatialFormer, and the recipe that makes them."""

from collections.abc import Sequence

from spatiagraph.data.recipe import Radius, Ranks, Recipe
from spatiagraph.data.vocabulary import GeneVocabulary

SPECIAL = ("[PAD]", "[CLS]", "[MASK]")
LAST = ("[SEP]",)
METADATA = {
    "species": ("Human", "Mouse"),
    "assay": ("Merfish", "Xenium", "CosMx"),
    "tissue": (
        "Lung", "Bone", "Brain", "Breast", "Cervix", "Colon", "Heart", "Liver", "Lymph Node",
        "Ovary", "Pancreas", "Prostate", "Skin", "Tonsil", "Kidney", "LymphNode", "BoneMarrow",
    ),
    "condition": ("Healthy", "Disease"),
}  # fmt: skip
"""Field → its tokens, in the order of the published ids 3 to 26."""
FIELDS = ("condition", "tissue", "species", "assay")
"""Order of the tokens of metadata in a sequence, that of the published code."""


def spatialformer_vocabulary(
    symbols: Sequence[str], medians: Sequence[float] | None = None
) -> GeneVocabulary:
    """Genes in alphabetical order between the special tokens, as the published ids have them.

    Args:
        symbols: Gene symbols, in any order; one that occurs again counts once.
        medians: Usual level of each of ``symbols``; fit them by ``vocabulary.fitted(slides)``.

    Examples:
        >>> vocabulary = spatialformer_vocabulary(["KRT8", "ACTB"])
        >>> vocabulary.ranges["gene"], vocabulary.token("[SEP]"), vocabulary.symbols
        (range(27, 29), 29, ('ACTB', 'KRT8'))
    """
    level = dict(zip(symbols, medians or [1.0] * len(symbols), strict=True))
    names = sorted(level)
    meta = [token for tokens in METADATA.values() for token in tokens]
    return GeneVocabulary(
        names,
        medians=None if medians is None else [level[name] for name in names],
        special=SPECIAL,
        meta=meta,
        last=LAST,
    )


def spatialformer_recipe(
    vocabulary: GeneVocabulary, *, radius_um: float = 30.0, max_len: int = 500
) -> Recipe:
    """Recipe of a slide: ranked genes, and which cells are neighbours.

    Args:
        vocabulary: Genes, with their usual levels.
        radius_um: Longest distance of neighbours.
        max_len: Longest sequence; a cell alone has room for six tokens less.
    """
    return Recipe(
        vocabulary,
        graph=Radius(radius_um),
        levels=(),
        tokens=Ranks(max_len=max_len - len(FIELDS) - 2, ties="count"),
    )
