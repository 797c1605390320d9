"""Bag head: niches of a patient or region → its label."""

from torch import Tensor, nn

from spatiagraph.nn.config import Configurable
from spatiagraph.nn.pool import AttentionPool


class BagHead(Configurable):
    r"""Label of a bag of vectors: attention pooling, then an MLP of three layers.

    Multiple-instance learning as in `arXiv:1802.04712 <https://arxiv.org/abs/1802.04712>`_, by
    :class:`~spatiagraph.nn.AttentionPool`. The order of a bag means nothing; a bag of one vector is
    that vector.

    Args:
        channels: Size of a vector, :math:`D`.
        num_classes: Classes, :math:`C`.
        hidden_channels: Width of the MLP.
        dropout: Before each layer of the MLP.

    Shapes:
        - **h**: ``[M, D]``
        - **bag**: bag of each vector, in any order, ``[M]``
        - **num_bags**: :math:`B`
        - **output**: logits, ``[B, C]``
    """

    def __init__(
        self, channels: int, num_classes: int, hidden_channels: int = 64, dropout: float = 0.25
    ):
        super().__init__()
        self.pool = AttentionPool(channels, heads=1)
        self.mlp = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(channels, hidden_channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_channels, hidden_channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_channels, num_classes),
        )

    def forward(self, h: Tensor, bag: Tensor, num_bags: int) -> Tensor:
        return self.mlp(self.pool(h, bag, num_bags).h)
