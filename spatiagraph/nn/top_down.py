"""Context back to the cells, through gates that start closed."""

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable


class TopDown(Configurable):
    r"""Add the features of a group to its members: :math:`\mathbf{h}_i + \boldsymbol\gamma \odot \mathbf{W} \mathbf{z}_{a_i}`.

    The gate :math:`\boldsymbol\gamma` starts at zero, so that context cannot replace the cell
    before it has proved useful (`SPATIA <https://arxiv.org/abs/2507.04704>`_, §3).

    Args:
        channels: Size of both features, :math:`D`.

    Shapes:
        - **h**: members, ``[N, D]``
        - **z**: groups, ``[M, D]``
        - **assignment**: group of each member, ``[N]``; members with -1 stay as they are
        - **output**: ``[N, D]``
    """  # noqa: E501

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.linear = nn.Linear(channels, channels)
        self.gate = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor, z: Tensor, assignment: Tensor) -> Tensor:
        context = self.linear(z).index_select(0, assignment.clamp(min=0))
        return h + self.gate * context * (assignment >= 0).unsqueeze(1)
