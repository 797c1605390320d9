"""SPATIA put together from parts: sizes, recipes, encoders."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import nn

from spatiagraph.data.labels import LabelSet
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import Crop, Grid, InGroups, Recipe
from spatiagraph.models.context_encoder import ContextEncoder
from spatiagraph.models.spatia.heads import SpatiaHeads
from spatiagraph.models.spatia.size import BASE, SpatiaSize
from spatiagraph.nn.binned_genes import BinnedGeneEncoder
from spatiagraph.nn.cross_attention import CrossAttention
from spatiagraph.nn.encoding import EdgeEncoding, PositionEncoding
from spatiagraph.nn.gene_tokens import GeneTokenEncoder
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.image import ImageEncoder
from spatiagraph.nn.image_statistics import ImageStatistics
from spatiagraph.nn.level import Level
from spatiagraph.nn.masked_image import MaskedImageDecoder, MaskedImageEncoder
from spatiagraph.nn.pool import AttentionPool
from spatiagraph.nn.protocols import ImageTokenEncoding
from spatiagraph.nn.residual import GatedMLP
from spatiagraph.nn.start import ProfileStart
from spatiagraph.nn.token_cell import TokenCellEncoder
from spatiagraph.nn.token_fusion import TokenFusion
from spatiagraph.nn.transformer import GraphTransformer

_AMPLITUDE = 0.1  # of codes of positions: the components they are added to are of 0.2


def spatia_recipe(
    panel: GenePanel,
    *,
    size_px: int = 224,
    image: bool = True,
    labels: LabelSet | None = None,
    **rules: Any,
) -> Recipe:
    """Published recipe: niches of 54.4 µm, regions of 217.6 µm, crops of 13.6 µm.

    Args:
        panel: Genes the model reads.
        size_px: Side of the crops in pixels.
        image: Whether to crop around cells.
        labels: Labels to learn to classify.
        **rules: Arguments of :class:`~spatiagraph.data.Recipe` that are to differ.
    """
    own: dict[str, Any] = {"graph": InGroups(), "levels": (Grid(54.4), Grid(217.6))}
    if image:
        own["crops"] = (Crop(13.6, size_px),)
    return Recipe(panel, labels=labels, **{**own, **rules})


class SpatiaParts(NamedTuple):
    """Parts of :class:`~spatiagraph.models.Spatia`, in the order of its arguments."""

    recipe: Recipe
    cell_encoder: TokenCellEncoder | ProfileStart
    context_encoder: ContextEncoder
    heads: SpatiaHeads


def spatia_parts(
    recipe: Recipe | GenePanel,
    size: SpatiaSize = BASE,
    *,
    genes: GeneTokenEncoder | BinnedGeneEncoder | bool = True,
    image: ImageTokenEncoding | None = None,
    fusion: TokenFusion | None = None,
    image_channels: int = 1,
    start: bool = True,
    top_down: bool | Sequence[bool] = True,
    region_tokens: bool = False,
    likelihood: Literal["zinb", "gaussian"] = "zinb",
) -> SpatiaParts:
    """Parts of SPATIA in a size; those that are given are used as they are.

    Args:
        recipe: How a slide becomes a graph; with crops of cells images are read, and with crops of
            a level its groups look at theirs. A panel stands for :func:`spatia_recipe` of it.
        size: Widths and depths.
        genes: Encoder of gene tokens; ``True`` for that of the size, ``False`` to read no genes. A
            :class:`~spatiagraph.nn.BinnedGeneEncoder` is the binned branch, which has a number of
            tokens of its own.
        image: Encoder of crops, in place of that of the size.
        fusion: Fusion of both, in place of the published one.
        image_channels: Channels of the images: 1 for DAPI, 3 for H&E.
        start: Start from the principal components of the whole profile, and of colours and textures
            of the crop, see :class:`~spatiagraph.nn.ProfileStart`; ``False`` is the published
            model.
        top_down: Whether niches, and regions, are handed down to their cells.
        region_tokens: Let the niches of a region see a learned token of it, and where the recipe
            crops regions their image, before the layers among niches; as published.
        likelihood: ``"zinb"`` for counts, ``"gaussian"`` for values that are normalised already.

    Raises:
        ValueError: If neither genes nor images are read, or parts do not fit together.
    """
    if isinstance(recipe, GenePanel):
        recipe = spatia_recipe(recipe, size_px=size.size_px)
    crop, num_genes = recipe.crop(), len(recipe.panel)
    if likelihood not in ("zinb", "gaussian"):
        raise ValueError(f"Expected 'likelihood' zinb or gaussian, got {likelihood!r}")
    counts = likelihood == "zinb"
    num_labels = 0 if recipe.labels is None else len(recipe.labels.num_classes)
    if genes is False and crop is None:
        raise ValueError("Expected genes, crops of cells or both: the model would read nothing")
    if genes is True:
        genes = GeneTokenEncoder(
            num_genes,
            size.gene_channels,
            num_labels=num_labels,
            num_layers=size.gene_layers,
            heads=size.heads,
            dropout=size.dropout,
            normalization=size.normalization if counts else "none",
        )
    gene_tokens = genes or None
    decoder = token_channels = None
    if crop is not None:
        image = crop_encoder(size, crop, image_channels) if image is None else image
        decoder, token_channels = patch_decoder(image, size), image.channels
        fusion = fusion or TokenFusion(
            size.gene_channels if gene_tokens is None else gene_tokens.channels,
            image.channels,
            size.channels,
            num_cell_tokens=gene_tokens.num_cell_tokens if gene_tokens else 2 + num_labels,
            heads=size.heads,
            dropout=size.dropout,
        )
    binned = gene_tokens if isinstance(gene_tokens, BinnedGeneEncoder) else None
    encoder: Any = TokenCellEncoder(
        size.channels,
        gene_tokens,
        image if crop is not None else None,
        fusion,
        num_tokens=size.num_tokens if binned is None else binned.num_tokens,
        tokenizer="counts" if binned is None else "bins",
    )
    if start:
        profile = GeneEncoder(
            num_genes, size.channels, hidden_channels=0, normalize_depth=counts, fixed_basis=True
        )
        statistics = ImageStatistics(size.channels) if crop is not None else None
        encoder = ProfileStart(encoder, None if gene_tokens is None else profile, statistics)
    return SpatiaParts(
        recipe,
        encoder,
        spatia_context(
            recipe,
            size,
            top_down=top_down,
            token_channels=token_channels,
            region_tokens=region_tokens,
            amplitude=_AMPLITUDE if start else None,
            change=GatedMLP(size.channels) if start else None,
        ),
        SpatiaHeads(
            size.channels,
            num_genes,
            gene_channels=None if gene_tokens is None else gene_tokens.channels,
            image_channels=token_channels,
            num_classes=() if recipe.labels is None else recipe.labels.num_classes,
            image_decoder=decoder,
            dropout=size.dropout,
        ),
    )


def crop_encoder(
    size: SpatiaSize, crop: Crop, image_channels: int
) -> ImageEncoder | MaskedImageEncoder:
    """Encoder of crops: a ViT that hides patches in training, or a CNN.

    Args:
        size: Which timm model, and its options.
        crop: The crops it is to read; with windows of their own it reads their size.
        image_channels: Channels of the images.
    """
    options = dict(size.image_options)
    if not size.image.startswith(("vit_", "deit", "test_vit")):
        return ImageEncoder(
            size.image, size.channels, tokens=True, in_channels=image_channels, **options
        )
    return MaskedImageEncoder(
        size.image,
        read_window=not crop.same_for_all,
        in_channels=image_channels,
        img_size=crop.size_px,
        **options,
    )


def patch_decoder(image: ImageTokenEncoding, size: SpatiaSize) -> MaskedImageDecoder | None:
    """Decoder of hidden patches, for an encoder that hides some."""
    if not isinstance(image, MaskedImageEncoder):
        return None
    return MaskedImageDecoder.matching(
        image,
        hidden_channels=size.decoder_channels,
        num_layers=size.decoder_layers,
        heads=max(1, size.decoder_channels // 32),
    )


def spatia_context(
    recipe: Recipe,
    size: SpatiaSize,
    *,
    top_down: bool | Sequence[bool] = True,
    token_channels: int | None = None,
    region_tokens: bool = False,
    amplitude: float | None = None,
    change: nn.Module | None = None,
) -> ContextEncoder:
    """Context encoder of SPATIA for the levels of a recipe.

    Where edges stay inside niches, cells know their position in it; otherwise edges have
    directions. Groups of a level whose image is cropped look at it.

    Args:
        recipe: How a slide becomes a graph.
        size: Widths and depths.
        top_down: Whether the groups of each level are handed down to their cells.
        token_channels: Size of the image tokens that groups look at; ``None`` for no look.
        region_tokens: Whether groups see a learned token of the group above, and of its image.
        amplitude: Of codes of positions, see :class:`~spatiagraph.nn.PositionEncoding`; 1 for good,
            as published, when ``None``.
        change: What only cells learn, see :class:`~spatiagraph.models.ContextEncoder`.
    """
    channels, heads, dropout = size.channels, size.context_heads, size.dropout
    inside = isinstance(recipe.graph, InGroups)
    edges = None if inside else EdgeEncoding(direction=True)
    edge_dim = 0 if edges is None else edges.out_channels
    names = recipe.level_names
    down = [top_down] * len(names) if isinstance(top_down, bool) else list(top_down)
    if len(down) != len(names):
        raise ValueError(f"Expected 'top_down' of {len(names)} levels, got {len(down)}")
    cell_layers, level_layers = size.level_layers
    conv = GraphTransformer(channels, cell_layers, heads, edge_dim=edge_dim, dropout=dropout)
    levels = []
    for i, name in enumerate(names):
        last = i + 1 == len(names)
        look = None
        if token_channels is not None and recipe.crop(name) is not None:
            look = CrossAttention(channels, heads, memory_channels=token_channels)
        among = seen = None
        if region_tokens and not last and recipe.crop(names[i + 1]) is not None:
            seen = token_channels
        if not last:
            among = GraphTransformer(channels, level_layers, heads, dropout=dropout)
        levels.append(
            Level(
                channels,
                pool=AttentionPool(channels, heads),
                conv=among,
                position=None if last else PositionEncoding(channels, amplitude=amplitude),
                look=look,
                top_down=down[i],
                maskable=not last,
                region_token=region_tokens and not last,
                region_channels=seen or 0,
            )
        )
    return ContextEncoder(
        channels,
        conv=conv,
        levels=levels,
        edge_encoding=edges,
        position=PositionEncoding(channels, amplitude=amplitude) if inside else None,
        change=change,
        maskable=True,
    )
