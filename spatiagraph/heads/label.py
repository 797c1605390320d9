"""Label head: embedding → class of each supervised label."""

from collections.abc import Sequence

from torch import Tensor, nn

from spatiagraph.nn.config import Configurable


class LabelHead(Configurable):
    """One linear classifier per label.

    Args:
        channels: Size of the embedding, :math:`D`.
        num_classes: Leaf classes of each label, :math:`C_k`.

    Shapes:
        - **z**: ``[N, D]``
        - **output**: logits of each label, ``[N, C_k]``
    """

    def __init__(self, channels: int, num_classes: Sequence[int]):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.classifiers = nn.ModuleList(nn.Linear(channels, size) for size in num_classes)

    def forward(self, z: Tensor) -> list[Tensor]:
        h = self.norm(z)
        return [classifier(h) for classifier in self.classifiers]
