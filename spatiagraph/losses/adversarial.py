"""Adversarial losses: information that the tokens of a cell must *not* carry."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spatiagraph.losses.hierarchical import hierarchical_bce
from spatiagraph.losses.mean import masked_mean
from spatiagraph.nn.gradient_reversal import GradientReversal


class LabelAdversary(nn.Module):
    r"""Adversary that predicts each label from the tokens of the *other* labels.

    Each label of a cell (type, disease, ...) has a token of its own. For label :math:`j`, a
    linear classifier reads the mean of the other tokens through a
    :class:`~spatiagraph.nn.gradient_reversal.GradientReversal`: it learns to find the label there
    while they learn to hide it, so what is known about a label gathers in its own token.

    Args:
        channels: Size of a token, :math:`D`.
        num_classes: Leaf classes of each label, :math:`K` of them.
        strength: Weight of the reversed gradient.

    Shapes:
        - **tokens**: label tokens of each cell, ``[N, K, D]``
        - **labels**: ``[N, K]``, leaf or branch as in
          :func:`~spatiagraph.losses.hierarchical_bce`, −1 for unknown
        - **descendants**: ``[P, C]`` for each label, ``None`` for one without branches
        - **output**: scalar, summed over labels

    Raises:
        ValueError: If there are fewer than two labels, or tokens, labels and classifiers disagree
            in number.
    """

    def __init__(self, channels: int, num_classes: Sequence[int], strength: float = 1.0):
        super().__init__()
        if len(num_classes) < 2:
            raise ValueError(
                f"Expected two or more labels, one hides in the others' tokens, got {num_classes}"
            )
        self.channels = channels
        self.num_classes = list(num_classes)
        self.reverse = GradientReversal(strength)
        self.classifiers = nn.ModuleList(nn.Linear(channels, size) for size in num_classes)

    def forward(
        self, tokens: Tensor, labels: Tensor, descendants: Sequence[Tensor | None] | None = None
    ) -> Tensor:
        num_labels = len(self.num_classes)
        if descendants is None:
            descendants = [None] * num_labels
        counts = (tokens.size(1), labels.size(1), len(descendants))
        if counts != (num_labels,) * 3:
            raise ValueError(
                f"Expected tokens, labels and descendants of {num_labels} labels, got {counts}"
            )
        others = (tokens.sum(1, keepdim=True) - tokens) / (num_labels - 1)  # [N, K, D]
        terms = [
            hierarchical_bce(classifier(self.reverse(token)), label, below)
            for classifier, token, label, below in zip(
                self.classifiers, others.unbind(1), labels.unbind(1), descendants, strict=True
            )
        ]
        return torch.stack(terms).sum()


class SourceAdversary(nn.Module):
    r"""Adversary that predicts the data set (slide, donor) of a cell from its embedding.

    A three-layer classifier behind a
    :class:`~spatiagraph.nn.gradient_reversal.GradientReversal`, with cross-entropy, as in
    `"Domain-Adversarial Training of Neural Networks" <https://arxiv.org/abs/1505.07818>`_.

    Args:
        channels: Size of the embedding, :math:`D`.
        num_sources: Data sets to tell apart.
        strength: Weight of the reversed gradient.

    Shapes:
        - **h**: embedding of each cell, such as the mean of its label tokens, ``[N, D]``
        - **source**: data set of each cell, ``[N]``; −1 for unknown, which costs nothing
        - **output**: scalar, mean over the cells of known source
    """

    def __init__(self, channels: int, num_sources: int, strength: float = 1.0):
        super().__init__()
        self.channels = channels
        self.num_sources = num_sources
        self.classifier = nn.Sequential(
            GradientReversal(strength),
            nn.Linear(channels, channels),
            nn.LayerNorm(channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
            nn.LayerNorm(channels),
            nn.ReLU(),
            nn.Linear(channels, num_sources),
        )

    def forward(self, h: Tensor, source: Tensor) -> Tensor:
        logits = self.classifier(h)
        loss = cross_entropy(logits.float(), source, ignore_index=-1, reduction="none")
        return masked_mean(loss, source >= 0)
