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
        return h + self.gate * rows_or_zero(self.linear(z), assignment)


def rows_or_zero(values: Tensor, index: Tensor) -> Tensor:
    """Rows of a table, and zeros where the index is -1; there may be no row at all.

    Args:
        values: ``[M, D]``.
        index: ``[N]``.

    Returns:
        ``[N, D]``.
    """
    if not len(values):
        return values.new_zeros(len(index), values.size(1))
    return values.index_select(0, index.clamp(min=0)) * (index >= 0).unsqueeze(1)
