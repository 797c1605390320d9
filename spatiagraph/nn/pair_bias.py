"""Distances of pairs of nodes → a bias of attention for each head, by Gaussian kernels."""

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spatiagraph.nn.config import Configurable


class GaussianPairBias(Configurable):
    r"""Bias of each pair of nodes from their distance, and one bias of all pairs that are far.

    With :math:`u = w D + b`, learned means :math:`\mu_k` and widths :math:`\sigma_k = |s_k| + 10^{-5}`

    .. math::
        g_k(D) = \frac{1}{\sqrt{2\pi}\,\sigma_k} \exp\left(-\frac{(u-\mu_k)^2}{2\sigma_k^2}\right),
        \qquad \mathbf{b}(D) = \mathrm{MLP}(\mathbf{g}(D)) \in \mathbb{R}^H .

    Only pairs whose distance is known are evaluated, some thousand at a time: the ``[L, L, K]``
    tensor of the kernels is never there, and in training a chunk is computed again in the backward
    pass. A pair that is far has all kernels at 0.

    Args:
        heads: Attention heads, :math:`H`.
        num_kernels: Gaussian kernels, :math:`K`.
        far: Distance at which pairs that are far are evaluated, in place of kernels at 0: 100 in
            the published code.

    Shapes:
        - **distance**: ``[E]``
        - **output**: ``[E, H]``
    """  # noqa: E501

    chunk_size = 16_384
    """Pairs evaluated at once: memory, not the result."""

    def __init__(self, heads: int, num_kernels: int = 128, *, far: float | None = None):
        super().__init__()
        self.num_kernels = num_kernels
        self.far_distance = far
        self.scale = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1))
        self.mean = nn.Parameter(3 * torch.rand(num_kernels))
        self.width = nn.Parameter(3 * torch.rand(num_kernels))
        self.mlp = nn.Sequential(
            nn.Linear(num_kernels, num_kernels), nn.ReLU(), nn.Linear(num_kernels, heads)
        )

    def kernels(self, distance: Tensor) -> Tensor:
        """Values of the kernels, ``[E, K]``."""
        sigma = self.width.abs() + 1e-5
        u = (self.scale * distance + self.shift).unsqueeze(1)
        return (-((u - self.mean) / sigma).square() / 2).exp() / (math.sqrt(2 * math.pi) * sigma)

    def forward(self, distance: Tensor) -> Tensor:
        if not distance.numel():
            return self.far().new_empty(0, self.far().numel())
        parts = distance.split(self.chunk_size)
        if not torch.is_grad_enabled():
            return torch.cat([self._chunk(part) for part in parts])
        return torch.cat([checkpoint(self._chunk, part, use_reentrant=False) for part in parts])

    def far(self) -> Tensor:
        """Bias of a pair that is far, ``[H]``."""
        if self.far_distance is not None:
            return self._chunk(self.mean.new_tensor([self.far_distance]))[0]
        return self.mlp(torch.zeros_like(self.mean))

    def _chunk(self, distance: Tensor) -> Tensor:
        return self.mlp(self.kernels(distance))

    def extra_repr(self) -> str:
        return f"num_kernels={self.num_kernels}"
