"""ST-Align put together from parts: recipe, scales, provider."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from spatiagraph.data.agreement import spot_pitch_um
from spatiagraph.data.gene_sets import read_gmt, union_of
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import KNN, Crop, Feature, Neighborhoods, Recipe
from spatiagraph.data.slide import Slide
from spatiagraph.models.st_align.checks import check_features, feature_sizes
from spatiagraph.models.st_align.profiles import NICHE_IMAGE
from spatiagraph.models.st_align.scale import Branch, Scale
from spatiagraph.models.st_align.size import BASE, SIZES, STAlignSize
from spatiagraph.nn.abfn import ABFN, ProjectionHead
from spatiagraph.nn.canonical import CanonicalStart, StatisticsEncoder
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.niche_genes import NicheGeneEncoder
from spatiagraph.nn.small_image import FrozenImageEncoder, SpotImageEncoder
from spatiagraph.nn.vector_tokens import ConvTokenizer, VectorTokenizer


def st_align_recipe(
    panel: GenePanel,
    *,
    pitch_um: float = 100.0,
    mpp: float | None = None,
    size_px: tuple[int, int] = BASE.size_px,
    features: Sequence[str | Feature] = (),
) -> Recipe:
    """Published recipe: niches of a spot and its six nearest, windows of one and two pitches.

    Args:
        panel: Genes of the niche, and of the spot where there are no features.
        pitch_um: Distance of neighbouring spots: 100 for Visium.
        mpp: µm per pixel of the images, which crops are as sharp as; ``None`` for no image.
        size_px: Sides of the crops of spots and niches in pixels, at most.
        features: Slots of ``obsm`` with profiles of spots, such as frozen scGPT vectors.
    """
    crops = []
    if mpp is not None:
        for window, most, name in zip((1, 2), size_px, (None, NICHE_IMAGE), strict=True):
            crop = Crop(window * pitch_um, name=name, reflect=True)
            side = min(most, max(8, crop.native_px(mpp)))
            crops.append(Crop(window * pitch_um, side, name=name, reflect=True))
    return Recipe(
        panel,
        graph=KNN(6),
        levels=(Neighborhoods(6, max_ratio=1.5),),
        crops=tuple(crops),
        features=tuple(Feature(f) if isinstance(f, str) else f for f in features),
    )


def as_size(size: STAlignSize | str) -> STAlignSize:
    """A size, or the one of a name.

    Raises:
        ValueError: If there is no such name.
    """
    if isinstance(size, STAlignSize):
        return size
    if size not in SIZES:
        raise ValueError(f"Expected a size among {', '.join(SIZES)}, got {size!r}")
    return SIZES[size]


def recipe_for(
    slides: Sequence[Slide],
    size: STAlignSize = BASE,
    *,
    genes: str | int | None = 1000,
    features: Sequence[str] = (),
) -> Recipe:
    """Published recipe with the genes, the pitch and the pixels of some slides.

    Args:
        slides: The slides to be trained on.
        size: Says how large crops may be.
        genes: GMT file of gene sets whose union is read, or the number of most variable genes; all
            of them when ``None``.
        features: Slots of ``obsm`` with profiles of spots.
    """
    if isinstance(genes, str):
        panel = GenePanel(union_of(read_gmt(genes)))
    else:
        panel = GenePanel.from_slides(slides, num_genes=genes)
    return st_align_recipe(
        panel,
        pitch_um=spot_pitch_um(slides) or 100.0,
        mpp=max((s.image.mpp for s in slides if s.image is not None), default=None),
        size_px=size.size_px,
        features=features,
    )


def feature_width(recipe: Recipe, slides: Sequence[Slide]) -> int | None:
    """Size of the features of a recipe side by side; ``None`` for a recipe without.

    Args:
        recipe: The recipe.
        slides: The slides.

    Raises:
        ValueError: If a slide lacks one, or has one of another size than the first.
    """
    if not recipe.features:
        return None
    width = sum(feature_sizes(recipe, slides[0]).values())
    for slide in slides:
        check_features(recipe, slide, width)
    return width


class STAlignParts(NamedTuple):
    """Parts of :class:`~spatiagraph.models.STAlign`, in the order of its arguments."""

    recipe: Recipe
    spot: Scale
    niche: Scale
    provider: GeneEncoder | None


def st_align_parts(
    recipe: Recipe,
    size: STAlignSize = BASE,
    *,
    feature_channels: int | None = None,
    backbone: FrozenImageEncoder | None = None,
    image_channels: int = 3,
    tokenizer: Literal["linear", "conv1"] = "linear",
    start: Literal["canonical"] | None = None,
    normalize_depth: bool = True,
) -> STAlignParts:
    """Parts of ST-Align in a size.

    Args:
        recipe: How a slide becomes a graph.
        size: Widths and depths.
        feature_channels: Size of the features of the recipe together; without features, profiles
            come from a :class:`~spatiagraph.nn.GeneEncoder` that is not trained.
        backbone: Frozen encoder of the images of niches; a ResNet as that of spots, which is
            trained, when ``None``.
        image_channels: Channels of the images: 3 for H&E.
        tokenizer: ``"linear"``, or ``"conv1"`` as published, whose tokens of spots are copies of
            one another.
        start: ``"canonical"`` for linear maps beside the heads of image and genes, which
            :meth:`~spatiagraph.models.STAlign.initialize` sets; ``None`` as published.
        normalize_depth: Whether the slides hold counts.

    Raises:
        ValueError: If the tokenizer or the start is unknown, or features do not fit it.
    """
    if tokenizer not in ("linear", "conv1"):
        raise ValueError(f"Expected 'tokenizer' linear or conv1, got {tokenizer!r}")
    if start not in ("canonical", None):
        raise ValueError(f"Expected 'start' canonical or None, got {start!r}")
    channels, num_genes = size.channels, len(recipe.panel)

    def tokens(in_channels: int) -> Any:
        if tokenizer == "linear":
            return VectorTokenizer(in_channels, channels, size.num_tokens)
        if in_channels % channels:
            raise ValueError(
                f"Expected features that come in multiples of {channels} with tokenizer='conv1', "
                f"got {in_channels}"
            )
        return ConvTokenizer(size.num_tokens, in_channels // channels)

    def resnet() -> SpotImageEncoder:
        return SpotImageEncoder(size.image, channels, in_channels=image_channels)

    def scale(image: Branch, genes: Branch | NicheGeneEncoder, profile_channels: int) -> Scale:
        heads = [
            ProjectionHead(
                channels,
                size.num_tokens,
                hidden_channels=size.head_hidden,
                out_channels=size.out_channels,
            )
            for _ in range(3)
        ]
        fusion = ABFN(
            channels,
            size.heads,
            size.head_channels,
            hidden_channels=size.fusion_channels,
            dropout=size.dropout,
        )
        first = None
        if start is not None:
            first = CanonicalStart(
                StatisticsEncoder.channels, profile_channels, size.out_channels, fused=True
            )
        return Scale(image, genes, fusion, heads, first)

    provider = None
    if feature_channels is None:
        feature_channels = size.provider_channels
        provider = GeneEncoder(
            num_genes,
            feature_channels,
            hidden_channels=0,
            normalize_depth=normalize_depth,
            fixed_basis=True,
        )
    wide: SpotImageEncoder | FrozenImageEncoder = resnet() if backbone is None else backbone
    genes = NicheGeneEncoder(
        num_genes,
        channels,
        num_tokens=size.num_tokens,
        hidden_channels=size.gene_channels,
        token_channels=size.token_channels,
        num_layers=size.gene_layers,
        heads=size.heads,
        head_channels=size.head_channels,
        mlp_channels=size.mlp_channels,
        dropout=size.dropout,
    )
    return STAlignParts(
        recipe,
        scale(
            Branch(resnet(), tokens(channels)),
            Branch(None, tokens(feature_channels)),
            feature_channels,
        ),
        scale(Branch(wide, tokens(wide.channels)), genes, num_genes),
        provider,
    )
