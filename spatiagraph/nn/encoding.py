"""Encodings of positions: features of edges, and of positions within a group."""

import torch
from torch import Tensor, nn

from spatiagraph.graph.encode import (
    distance_rbf,
    edge_direction,
    edge_vectors,
    position_encoding,
)
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.top_down import rows_or_zero


class EdgeEncoding(Configurable):
    """Distance, and optionally direction, of each edge.

    Distances alone do not change when a slide is moved, turned or mirrored. Direction adds the
    unit vector from target to source, which gives up invariance to rotation.

    Args:
        num_rbf: Gaussian radial basis functions of the distance.
        max_um: Distance of the last basis function.
        direction: Add the unit vector of each edge.

    Shapes:
        - **pos**: µm, ``[N, 2]``
        - **edge_index**: ``[2, E]``
        - **output**: ``[E, F]`` with ``F = num_rbf (+ 2)``
    """

    def __init__(self, num_rbf: int = 8, *, max_um: float = 200.0, direction: bool = False):
        super().__init__()
        self.num_rbf = num_rbf
        self.max_um = max_um
        self.direction = direction
        self.out_channels = num_rbf + 2 * direction

    def forward(self, pos: Tensor, edge_index: Tensor) -> Tensor:
        distance = edge_vectors(pos, edge_index).norm(dim=1)
        feature = distance_rbf(distance, self.num_rbf, max_um=self.max_um)
        if self.direction:
            feature = torch.cat([feature, edge_direction(pos, edge_index)], 1)
        return feature


class PositionEncoding(Configurable):
    """Position of a member within its group, as sines and cosines of µm: ``PE2D`` of SPATIA.

    Places are relative to the centre of the group, so that it does not matter where on the slide
    the group lies.

    Args:
        channels: Size of the code, :math:`D`; a multiple of 4.
        min_um: Shortest wavelength over 2π.
        max_um: Longest.
        amplitude: Factor of the code to start with, which is then learned; 1 for good when
            ``None``. Features that start much smaller than the code would be drowned by it.

    Shapes:
        - **pos**: members in µm, ``[N, 2]``
        - **center**: groups in µm, ``[M, 2]``
        - **assignment**: group of each member, ``[N]``; -1 for none, whose code is zero
        - **output**: ``[N, D]``
    """

    def __init__(
        self,
        channels: int,
        *,
        min_um: float = 2.0,
        max_um: float = 2000.0,
        amplitude: float | None = None,
    ):
        super().__init__()
        self.channels = channels
        self.min_um = min_um
        self.max_um = max_um
        self.amplitude = amplitude
        self.factor = None if amplitude is None else nn.Parameter(torch.tensor(float(amplitude)))

    def forward(self, pos: Tensor, center: Tensor, assignment: Tensor) -> Tensor:
        offset = pos - rows_or_zero(center, assignment)
        code = position_encoding(offset, self.channels, min_um=self.min_um, max_um=self.max_um)
        code = code * (assignment >= 0).unsqueeze(1)
        return code if self.factor is None else self.factor * code
