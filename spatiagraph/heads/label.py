"""Label head: embedding → class of each supervised label."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable

_ABSENT = -5.0  # bias of a class that no cell has


class LabelHead(Configurable):
    """One linear classifier per label, on standardised channels.

    Args:
        channels: Size of the embedding, :math:`D`.
        num_classes: Leaf classes of each label, :math:`C_k`.

    Shapes:
        - **z**: ``[N, D]``
        - **output**: logits of each label, ``[N, C_k]``
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int, num_classes: Sequence[int]):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.classifiers = nn.ModuleList(nn.Linear(channels, size) for size in num_classes)

    def forward(self, z: Tensor) -> list[Tensor]:
        h = (z - self.mean) / self.std
        return [classifier(h) for classifier in self.classifiers]

    @torch.no_grad()
    def initialize(self, z: Tensor, labels: Tensor) -> None:
        """Start from logistic regression on embeddings that stay as they are.

        Fine-tuning from there distorts a good embedding less than from random classifiers, see
        `arXiv:2202.10054 <https://arxiv.org/abs/2202.10054>`_.

        Args:
            z: Embeddings, ``[N, D]``.
            labels: Leaf class of each label, ``[N, K]``; -1 and branches are left out.

        Raises:
            ValueError: If a label has fewer than two classes among the cells.
        """
        from sklearn.linear_model import LogisticRegression

        self.mean.copy_(z.mean(0))
        std = z.std(0)
        self.std.copy_(torch.where(std > 1e-6, std, 1))  # one that never varied has no unit
        h = ((z - self.mean) / self.std).cpu().numpy()
        for number, (layer, label) in enumerate(zip(self.classifiers, labels.T, strict=True)):
            assert isinstance(layer, nn.Linear)  # built above
            known = ((label >= 0) & (label < layer.out_features)).cpu().numpy()
            target = label.cpu().numpy()[known]
            if len(set(target.tolist())) < 2:
                raise ValueError(
                    f"Expected cells of two or more classes of label {number}, got "
                    f"{sorted(set(target.tolist()))}"
                )
            found = LogisticRegression(max_iter=500).fit(h[known], target)
            weight, bias = torch.from_numpy(found.coef_), torch.from_numpy(found.intercept_)
            if len(found.classes_) == 2:  # scikit-learn keeps one row for both
                weight, bias = torch.cat([-weight, weight]), torch.cat([-bias, bias])
            classes = torch.from_numpy(found.classes_)
            layer.weight.zero_()
            layer.bias.fill_(_ABSENT)
            layer.weight[classes] = weight.to(layer.weight)
            layer.bias[classes] = bias.to(layer.bias)
