"""Sizes of ST-Align."""

from dataclasses import dataclass


@dataclass(frozen=True)
class STAlignSize:
    """Widths and depths of ST-Align; the published ones by default.

    Attributes:
        channels: Size of tokens, :math:`D`; even.
        num_tokens: Tokens of each view.
        heads: Attention heads of the fusions and of the gene encoder.
        head_channels: Size of each head.
        image: ResNet of timm that encodes spots, and niches where no backbone is given.
        size_px: Sides of the crops of spots and niches in pixels, at most.
        provider_channels: Size of the profile of a spot where no features are given.
        gene_channels: Widths of the bottleneck of the gene encoder.
        token_channels: Width of its tokens inside; that of the genes over the tokens when ``None``.
        gene_layers: Layers of its transformer.
        mlp_channels: Width of the MLPs of its transformer.
        fusion_channels: Width of the MLPs of the fusions.
        head_hidden: Width of the projection heads.
        out_channels: Size of what they return, :math:`P`.
        dropout: Dropout of attention and MLPs.
    """

    channels: int = 512
    num_tokens: int = 8
    heads: int = 8
    head_channels: int = 64
    image: str = "resnet50"
    size_px: tuple[int, int] = (64, 128)
    provider_channels: int = 512
    gene_channels: tuple[int, ...] = (1024, 512)
    token_channels: int | None = None
    gene_layers: int = 6
    mlp_channels: int = 1024
    fusion_channels: int = 64
    head_hidden: int = 2048
    out_channels: int = 1024
    dropout: float = 0.1


BASE = STAlignSize()
"""The published size."""

TINY = STAlignSize(
    channels=64,
    head_channels=8,
    image="test_resnet",
    size_px=(16, 24),
    provider_channels=64,
    gene_channels=(128, 64),
    token_channels=64,
    gene_layers=2,
    mlp_channels=128,
    fusion_channels=16,
    head_hidden=256,
    out_channels=128,
    dropout=0.0,
)
"""An eighth of the width, for tests and laptops without GPU."""

SIZES = {"tiny": TINY, "base": BASE}
"""Sizes by name."""
