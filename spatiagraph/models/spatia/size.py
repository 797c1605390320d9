"""Sizes of SPATIA."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spatiagraph.nn.gene_tokens import Normalization


@dataclass(frozen=True)
class SpatiaSize:
    """Widths and depths of SPATIA; the published ones by default.

    Attributes:
        channels: Size of every embedding, :math:`D`; a multiple of 4.
        gene_channels: Size of gene tokens.
        gene_layers: Layers of the gene encoder.
        heads: Attention heads of gene encoder and fusion.
        num_tokens: Genes of each cell that become tokens at most; ``None`` for all. A
            :class:`~spatiagraph.nn.BinnedGeneEncoder` has a number of its own.
        normalization: How counts enter, see :class:`~spatiagraph.nn.GeneTokenEncoder`.
        image: Name of a timm ViT (a masked autoencoder then) or CNN.
        size_px: Side of each crop in pixels.
        image_options: Further arguments of the timm model.
        decoder_channels: Width of the decoder of hidden patches.
        decoder_layers: Layers of it.
        level_layers: Layers of attention among the members of a niche, and of a region.
        context_heads: Attention heads of both.
        dropout: Dropout everywhere.
    """

    channels: int = 512
    gene_channels: int = 256
    gene_layers: int = 8
    heads: int = 4
    num_tokens: int | None = 1000
    normalization: Normalization = "sum"
    image: str = "vit_base_patch16_224"
    size_px: int = 224
    image_options: Mapping[str, Any] = field(default_factory=dict)
    decoder_channels: int = 512
    decoder_layers: int = 8
    level_layers: tuple[int, int] = (2, 4)
    context_heads: int = 8
    dropout: float = 0.1


BASE = SpatiaSize()
"""The published size: gene encoder of 8 × 256, ViT-B/16, 512 channels."""

SMALL = SpatiaSize(
    channels=256,
    gene_channels=128,
    gene_layers=4,
    num_tokens=512,
    normalization="log2p1",
    image="vit_small_patch16_224",
    size_px=64,
    image_options={"patch_size": 8},
    decoder_channels=192,
    decoder_layers=2,
    level_layers=(2, 2),
)
"""For one GPU."""

TINY = SpatiaSize(
    channels=64,
    gene_channels=32,
    gene_layers=2,
    heads=2,
    num_tokens=128,
    normalization="log2p1",
    image="vit_tiny_patch16_224",
    size_px=32,
    image_options={"patch_size": 8, "depth": 2, "embed_dim": 64, "num_heads": 4},
    decoder_channels=32,
    decoder_layers=1,
    level_layers=(1, 1),
    context_heads=4,
    dropout=0.0,
)
"""For tests and laptops without GPU: minutes on some thousand cells."""

SIZES = {"tiny": TINY, "small": SMALL, "base": BASE}
"""Sizes by name."""
