"""Head that scores every pair of genes of a cell."""

from typing import Literal

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable

PairKind = Literal["bilinear", "additive"]


class GenePairHead(Configurable):
    r"""Logits of all pairs of genes of a cell, symmetric.

    ``"bilinear"``: :math:`S = (hU)(hW)^\top / \sqrt{R}`, of rank :math:`R`. ``"additive"``, as the
    paper of SpatialFormer has it: :math:`S_{ij} = w_1 \cdot h_i + w_2 \cdot h_j`, two scores of
    genes, which no pair can make up for: it says nothing of pairs beyond their genes, and is here
    for comparison. Both are returned as :math:`(S + S^\top) / 2`.

    Args:
        channels: Size of each token, :math:`D`.
        rank: Rank of the bilinear form, :math:`R`.
        kind: Which of the two.

    Shapes:
        - **h**: genes of each cell, ``[C, n, D]``
        - **output**: ``[C, n, n]``

    Raises:
        ValueError: If there is no such kind.
    """

    def __init__(self, channels: int, rank: int = 128, kind: PairKind = "bilinear"):
        super().__init__()
        if kind not in ("bilinear", "additive"):
            raise ValueError(f"Expected 'kind' bilinear or additive, got {kind!r}")
        self.kind = kind
        self.width = rank if kind == "bilinear" else 1
        self.first = nn.Linear(channels, self.width, bias=False)
        self.second = nn.Linear(channels, self.width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        a, b = self.first(h), self.second(h)
        if self.kind == "bilinear":
            score = torch.bmm(a, b.transpose(1, 2)) / self.width**0.5
        else:
            score = a + b.transpose(1, 2)
        return (score + score.transpose(1, 2)) / 2
