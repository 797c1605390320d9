"""Optimal transport between Gaussians, as a map of images.

Shape letters: ``B`` images, ``D`` pixels of them, ``K`` components, ``G`` groups.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from spatiagraph.nn.config import Configurable

_LEAST = 1e-6  # of the mean variance: what varies less is not stretched
_NOTHING = 1e-15
_ITERATIONS = 4  # of the randomised components


class GaussianMap(Configurable):
    r"""Map images of one state to another as optimal transport between two Gaussians does.

    .. math::
        T(\mathbf{x}) = \mathbf{m}_1 + \mathbf{V} \mathbf{A} \mathbf{V}^\top
        (\mathbf{x} - \mathbf{m}_0) + s \, (\mathbf{I} - \mathbf{V} \mathbf{V}^\top)
        (\mathbf{x} - \mathbf{m}_0), \qquad
        \mathbf{A} = \mathbf{S}_0^{-1/2} (\mathbf{S}_0^{1/2} \mathbf{S}_1
        \mathbf{S}_0^{1/2})^{1/2} \mathbf{S}_0^{-1/2}

    with the means :math:`\mathbf{m}` and covariances :math:`\mathbf{S}` of both states in principal
    components :math:`\mathbf{V}`, and one factor :math:`s` for all that is beyond them. See
    *Computational Optimal Transport* (Peyré and Cuturi, 2019), remark 2.31. Returns what it was
    given until :meth:`initialize` has seen images.

    Args:
        shape: Of an image, ``(C, H, W)``.
        num_groups: Maps to keep, :math:`G`.
        num_components: Components, :math:`K`.
        side_px: Images with longer sides are averaged to about this side; the change is then
            enlarged.

    Shapes:
        - **x**: ``[B, C, H, W]``
        - **group**: map of each image, ``[B]``
        - **output**: ``[B, C, H, W]``

    Raises:
        ValueError: There is no group, no component, or the side is below 1.
    """

    basis: Tensor
    source_mean: Tensor
    target_mean: Tensor
    matrix: Tensor
    factor: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        num_groups: int,
        *,
        num_components: int = 16,
        side_px: int = 32,
    ):
        super().__init__()
        if min(num_groups, num_components, side_px) < 1:
            raise ValueError(
                f"Expected 'num_groups', 'num_components' and 'side_px' of at least 1, got "
                f"{num_groups}, {num_components} and {side_px}"
            )
        channels, height, width = (int(size) for size in shape)
        self.shape, self.num_groups = (channels, height, width), num_groups
        self.small = (min(height, side_px), min(width, side_px))
        size = channels * self.small[0] * self.small[1]
        num = min(num_components, size)
        self.register_buffer("basis", torch.eye(size, num))
        self.register_buffer("source_mean", torch.zeros(num_groups, size))
        self.register_buffer("target_mean", torch.zeros(num_groups, size))
        self.register_buffer("matrix", torch.eye(num).repeat(num_groups, 1, 1))
        self.register_buffer("factor", torch.ones(num_groups))

    def forward(self, x: Tensor, group: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"Expected images {list(self.shape)}, got {list(x.shape[1:])}")
        low = self._reduced(x.to(self.basis.dtype))
        centered = low - self.source_mean[group]
        inside = centered @ self.basis
        factor = self.factor[group].unsqueeze(1)
        stretched = (inside.unsqueeze(1) @ self.matrix[group]).squeeze(1) - factor * inside
        change = self.target_mean[group] + factor * centered + stretched @ self.basis.T - low
        change = change.view(-1, self.shape[0], *self.small)
        if self.small != self.shape[1:]:
            change = F.interpolate(change, self.shape[1:], mode="bilinear", antialias=False)
        return x + change.to(x.dtype)

    def _reduced(self, x: Tensor) -> Tensor:
        """Images at the side of the map, ``[B, D]``."""
        if self.small != self.shape[1:]:
            x = F.adaptive_avg_pool2d(x, self.small)
        return x.flatten(1)

    @torch.no_grad()
    def initialize(self, source: Tensor, target: Tensor, group: Tensor, *, seed: int = 0) -> None:
        """Take means and covariances from images, and their mirror images.

        Covariances of a group lean on those of all, the more the fewer images it has. A group of
        fewer than two images keeps returning what it is given.

        Args:
            source: Images of the first state, ``[N, C, H, W]``.
            target: Images of the second, ``[N, C, H, W]``; in no order.
            group: Map that each row belongs to, ``[N]``.
            seed: Of the randomised components.

        Raises:
            ValueError: Sizes differ, or are not those of the map.
        """
        if source.shape != target.shape or len(group) != len(source):
            raise ValueError(
                f"Expected images of one shape and a group for each, got {list(source.shape)}, "
                f"{list(target.shape)} and {len(group)} groups"
            )
        if tuple(source.shape[1:]) != self.shape:
            raise ValueError(f"Expected images {list(self.shape)}, got {list(source.shape[1:])}")
        ends = [self._mirrored(x) for x in (source, target)]
        group = group.repeat(4)
        counts = torch.bincount(group, minlength=self.num_groups).tolist()
        used = [g for g in range(self.num_groups) if counts[g] >= 8]  # two, and their mirrors
        if not used:
            return
        rows = [(group == g).nonzero().squeeze(1) for g in range(self.num_groups)]
        means = [
            torch.stack([x[rows[g]].mean(0) if g in used else x.mean(0) for g in range(len(rows))])
            for x in ends
        ]
        centered = [x - mean[group] for x, mean in zip(ends, means, strict=True)]
        num = self.basis.size(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            both = torch.cat(centered)
            basis = torch.pca_lowrank(both, min(num, *both.shape), center=False, niter=_ITERATIONS)
        self.basis.zero_()[:, : basis[2].size(1)] = basis[2].to(self.basis)
        inside = [(x @ self.basis).double() for x in centered]
        beyond = [
            (x.square().sum(1) - y.square().sum(1)).clamp(min=0).double()
            for x, y in zip(centered, inside, strict=True)
        ]
        pooled = [_covariance(y) for y in inside]
        for g in used:
            share = num / (num + len(rows[g]) / 4)
            spread = [
                (1 - share) * _covariance(y[rows[g]]) + share * mean
                for y, mean in zip(inside, pooled, strict=True)
            ]
            self.source_mean[g], self.target_mean[g] = means[0][g], means[1][g]
            self.matrix[g] = _transport(*spread).to(self.matrix)
            left = [x[rows[g]].mean() for x in beyond]
            self.factor[g] = (left[1] / left[0]).sqrt() if left[0] > 0 else 1.0

    def _mirrored(self, x: Tensor) -> Tensor:
        """Images and their mirror images at the side of the map, ``[4 N, D]``."""
        low = self._reduced(x.to(self.basis)).view(-1, self.shape[0], *self.small)
        turned = [low, low.flip(2), low.flip(3), low.flip((2, 3))]
        return torch.cat(turned).flatten(1)


def _covariance(x: Tensor) -> Tensor:
    return x.T @ x / len(x)


def _transport(source: Tensor, target: Tensor) -> Tensor:
    """Symmetric matrix that takes one covariance to another, ``[K, K]``."""
    least = _LEAST * source.diagonal().mean()
    if float(least) < _NOTHING:  # images that do not vary have no shape to change
        return torch.eye(len(source), dtype=source.dtype, device=source.device)
    values, vectors = torch.linalg.eigh(source)
    values = values.clamp(min=least)
    root = vectors * values.sqrt() @ vectors.T
    inverse = vectors * values.rsqrt() @ vectors.T
    values, vectors = torch.linalg.eigh(root @ target @ root)
    return inverse @ (vectors * values.clamp(min=0).sqrt() @ vectors.T) @ inverse
