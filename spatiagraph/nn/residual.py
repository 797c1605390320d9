"""Learned change of a feature behind a gate that starts at zero."""

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable


class GatedMLP(Configurable):
    r"""Change of each row by an MLP: :math:`\boldsymbol\gamma \odot \mathrm{MLP}(\mathrm{LN}(\mathbf{z}))`.

    Args:
        channels: Size of input and output, :math:`D`.
        hidden_channels: Width of the MLP.

    Shapes:
        - **z**: ``[N, D]``
        - **output**: ``[N, D]``, zero at the start
    """  # noqa: E501

    def __init__(self, channels: int, hidden_channels: int = 128):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, hidden_channels),
            nn.GELU(),
            nn.Linear(hidden_channels, channels),
        )
        self.gate = nn.Parameter(torch.zeros(channels))

    def forward(self, z: Tensor) -> Tensor:
        return self.gate * self.mlp(z)
