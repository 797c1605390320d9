"""Negatives of a contrastive loss: other spots of the batch, for each spot."""

import warnings
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from spatiagraph.losses.info_nce import info_nce_loss, paired_info_nce_loss


class Negatives(Protocol):
    """Rule that chooses negatives once for a batch, and the loss against them."""

    def draw(self, cluster: Tensor, slide: Tensor, generator: torch.Generator | None) -> Tensor:
        """Negatives of each spot.

        Args:
            cluster: Cluster of each spot on its slide, ``[N]``.
            slide: Slide of each spot, ``[N]``.
            generator: Source of randomness; torch's own when ``None``.
        """

    def loss(self, query: Tensor, positive: Tensor, drawn: Tensor, temperature: float) -> Tensor:
        """Contrast of two views of the spots, a scalar.

        Args:
            query: One view of each, ``[N, D]``.
            positive: The other, ``[N, D]``.
            drawn: Result of :meth:`draw`.
            temperature: Of the contrast.
        """


@dataclass(frozen=True)
class PairedNegatives:
    """Some spots of the same slide for each spot, of a different cluster each.

    The published negatives of `ST-Align <https://arxiv.org/abs/2411.16793>`_, but of the spots
    that the batch has encoded anyway: there every negative costs forward passes of its own.

    Attributes:
        num: Negatives of a spot.
        symmetric: Contrast in both directions instead of the published one.

    Raises:
        ValueError: If the number is not positive.
    """

    num: int = 5
    symmetric: bool = False

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"Expected 'num' of at least 1, got {self.num}")

    def draw(self, cluster: Tensor, slide: Tensor, generator: torch.Generator | None) -> Tensor:
        """Rows of the negatives of each spot, ``[N, num]``; see :func:`paired_negatives`."""
        return paired_negatives(cluster, slide, self.num, generator)

    def loss(self, query: Tensor, positive: Tensor, drawn: Tensor, temperature: float) -> Tensor:
        """InfoNCE against the negatives; those of -1 are left out."""
        there = drawn >= 0
        row = drawn.clamp(min=0)

        def one_way(q: Tensor, p: Tensor) -> Tensor:
            return paired_info_nce_loss(q, p, p[row], temperature=temperature, mask=there)

        found = one_way(query, positive)
        return (found + one_way(positive, query)) / 2 if self.symmetric else found


@dataclass(frozen=True)
class ClusterNegatives:
    """All spots of the same slide and of other clusters in the batch, in both directions."""

    def draw(self, cluster: Tensor, slide: Tensor, generator: torch.Generator | None) -> Tensor:
        """Negative pairs of spots, ``[N, N]`` bool."""
        return (cluster != cluster[:, None]) & (slide == slide[:, None])

    def loss(self, query: Tensor, positive: Tensor, drawn: Tensor, temperature: float) -> Tensor:
        """Symmetric InfoNCE against those spots."""
        return info_nce_loss(query, positive, temperature=temperature, alternatives=drawn)


@dataclass(frozen=True)
class SlideNegatives:
    """All other spots of the same slide in the batch, in both directions, as in CLIP.

    Unlike the published negatives they tell spots of one cluster apart, which retrieval asks for.
    """

    def draw(self, cluster: Tensor, slide: Tensor, generator: torch.Generator | None) -> Tensor:
        """Negative pairs of spots, ``[N, N]`` bool."""
        return slide == slide[:, None]

    def loss(self, query: Tensor, positive: Tensor, drawn: Tensor, temperature: float) -> Tensor:
        """Symmetric InfoNCE against those spots."""
        return info_nce_loss(query, positive, temperature=temperature, alternatives=drawn)


def paired_negatives(
    cluster: Tensor, slide: Tensor, num: int = 5, generator: torch.Generator | None = None
) -> Tensor:
    """Negatives of each spot: clusters of its slide at random, one spot of each.

    Args:
        cluster: Cluster of each spot on its slide, ``[N]``.
        slide: Slide of each spot, ``[N]``.
        num: Negatives of a spot.
        generator: Source of randomness; torch's own when ``None``.

    Returns:
        Rows, ``[N, num]``. Never of the own cluster or of another slide, and from different
        clusters where there are so many; -1 where a slide has one cluster alone.

    Warns:
        UserWarning: If a slide has fewer other clusters: some are drawn again.
    """
    _, slide = slide.unique(return_inverse=True)
    _, cluster = cluster.unique(return_inverse=True)
    key, group = (slide * (len(cluster) + 1) + cluster).unique(return_inverse=True)
    order = group.argsort(stable=True)
    size = torch.bincount(group, minlength=len(key))
    first = size.cumsum(0) - size
    slide_of = slide[order[first]]
    number = torch.arange(len(key), device=key.device)
    allowed = (slide_of == slide[:, None]) & (number != group[:, None])

    def rand(shape: torch.Size) -> Tensor:
        return torch.rand(shape, generator=generator, device=cluster.device)

    score = rand(allowed.shape).masked_fill(~allowed, -1)
    found = allowed.sum(1, keepdim=True)
    chosen = score.argsort(1, descending=True)
    if bool((found < num).any()):
        warnings.warn(
            f"Expected spots of at least {num + 1} clusters of a slide to draw {num} negatives "
            "from, got fewer in a batch: clusters are drawn more than once",
            stacklevel=2,
        )
    place = torch.arange(num, device=key.device).expand(len(cluster), -1)
    again = (rand(place.shape) * found).long()
    place = torch.where(place < found, place, again).clamp(max=max(len(key) - 1, 0))
    picked = chosen.gather(1, place)
    member = (rand(place.shape) * size[picked]).long()
    rows = order[first[picked] + torch.minimum(member, size[picked] - 1)]
    return torch.where(found > 0, rows, -1)
