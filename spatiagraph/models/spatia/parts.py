"""The larger parts of SPATIA, put together from blocks."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from spatiagraph.models.context_encoder import ContextEncoder
from spatiagraph.nn.cross_attention import CrossAttention
from spatiagraph.nn.encoding import EdgeEncoding, PlaceEncoding
from spatiagraph.nn.image import ImageEncoder
from spatiagraph.nn.masked_image import MaskedImageDecoder, MaskedImageEncoder
from spatiagraph.nn.pool import NichePool, TissuePool
from spatiagraph.nn.transformer import GraphTransformer


def crop_encoder(
    name: str,
    channels: int,
    source: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    size_px: int,
    mask_ratio: float,
    read_window: bool,
    decoder_channels: int,
    decoder_layers: int,
) -> tuple[Any, MaskedImageDecoder | None]:
    """Encoder of crops, and the decoder of hidden patches if it is a ViT.

    Args:
        name: Name of a timm model.
        channels: Size of the tokens of a CNN; a ViT has its own.
        source: Channels of the image and where first weights come from.
        options: Further arguments of the timm model.
        size_px: Side of each crop.
        mask_ratio: Share of patches hidden in training.
        read_window: Tell the encoder how large the window of each crop is.
        decoder_channels: Width of the decoder.
        decoder_layers: Layers of it.
    """
    if not name.startswith(("vit_", "deit", "test_vit")):
        return ImageEncoder(name, channels, tokens=True, **source, **options), None
    encoder = MaskedImageEncoder(
        name,
        mask_ratio=mask_ratio,
        read_window=read_window,
        img_size=size_px,
        **source,
        **options,
    )
    heads = max(1, decoder_channels // 32)
    decoder = MaskedImageDecoder.matching(
        encoder, hidden_channels=decoder_channels, num_layers=decoder_layers, heads=heads
    )
    return encoder, decoder


def context_encoder(
    channels: int,
    *,
    inside: bool,
    niche_layers: int,
    tissue_layers: int,
    heads: int,
    dropout: float,
    niche_tokens: int | None,
    tissue_tokens: int | None,
    use_niche: bool,
    use_tissue: bool,
) -> ContextEncoder:
    """Niche and tissue level.

    Args:
        channels: Size of every embedding.
        inside: Whether cells see those of their niche alone: places in the niche are known then,
            and directions along edges otherwise.
        niche_layers: Layers of attention between cells.
        tissue_layers: Layers of attention between niches.
        heads: Attention heads of both.
        dropout: Dropout of both.
        niche_tokens: Size of the image tokens that niches look at; ``None`` for no look.
        tissue_tokens: The same for regions.
        use_niche: Send niches back to their cells.
        use_tissue: Send regions back to their cells.
    """
    edges = None if inside else EdgeEncoding(direction=True)
    edge_dim = 0 if edges is None else edges.out_channels

    def look(size: int | None) -> nn.Module | None:
        return None if size is None else CrossAttention(channels, heads, context_channels=size)

    return ContextEncoder(
        channels,
        conv=GraphTransformer(channels, niche_layers, heads, edge_dim=edge_dim, dropout=dropout),
        edge_encoding=edges,
        place=PlaceEncoding(channels) if inside else None,
        niche_pool=NichePool(channels, heads),
        niche_place=PlaceEncoding(channels),
        niche_conv=GraphTransformer(channels, tissue_layers, heads, dropout=dropout),
        tissue_pool=TissuePool(channels, heads),
        niche_fusion=look(niche_tokens),
        tissue_fusion=look(tissue_tokens),
        maskable=True,
        use_niche=use_niche,
        use_tissue=use_tissue,
    )
