"""Sizes of SToFM."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SToFMSize:
    """Widths and depths of SToFM; the published ones by default.

    Attributes:
        cell_channels: Size of the vector of a cell on its own.
        cell_layers: Layers of the rank encoder.
        cell_heads: Its attention heads.
        cell_hidden: Width of its MLPs.
        cell_dropout: Its dropout.
        channels: Size of the embedding of a cell in context.
        num_layers: Layers of the SE(2) transformer.
        heads: Its attention heads.
        num_kernels: Its Gaussian kernels of distances.
        hidden_channels: Width of its MLPs, which is not published.
        dropout: Its dropout.
    """

    cell_channels: int = 256
    cell_layers: int = 6
    cell_heads: int = 4
    cell_hidden: int = 512
    cell_dropout: float = 0.02
    channels: int = 256
    num_layers: int = 4
    heads: int = 8
    num_kernels: int = 128
    hidden_channels: int = 1024
    dropout: float = 0.1


BASE = SToFMSize()
"""The published size: a rank encoder of 6 × 256 and an SE(2) transformer of 4 × 256."""

TINY = SToFMSize(
    cell_channels=64,
    cell_layers=2,
    cell_hidden=128,
    channels=64,
    num_layers=2,
    heads=4,
    num_kernels=16,
    hidden_channels=128,
    dropout=0.0,
)
"""For tests and laptops without GPU: minutes on some thousand cells."""

SIZES = {"tiny": TINY, "base": BASE}
"""Sizes by name."""
