"""Parts of SToFM that only pre-training reads."""

import torch
from torch import nn
from torch.nn.functional import normalize

from spatiagraph.nn.config import Configurable


class SToFMHeads(Configurable):
    """Heads of pre-training, and the vector that takes the place of a hidden cell.

    Args:
        cell_channels: Size of the vector of a cell on its own.
        channels: Size of a node of the SE(2) transformer.
        heads: Attention heads of it, the channels of a pair.
    """

    def __init__(self, cell_channels: int, channels: int, heads: int):
        super().__init__()
        self.mask = nn.Parameter(normalize(torch.randn(cell_channels), dim=0))
        self.cell = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, cell_channels)
        )
        last = nn.Linear(heads, 1)
        self.distance = nn.Sequential(nn.Linear(heads, heads), nn.ReLU(), last)
        nn.init.ones_(last.bias)  # the mean, in the unit of distances
