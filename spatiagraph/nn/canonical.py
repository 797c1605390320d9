"""Linear maps of two views to one space by canonical correlation, to start a contrast from.

Shape letters: ``N`` spots, ``F`` and ``G`` features of the two views, ``P`` size of the space.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable
from spatiagraph.nn.image_statistics import NUM_STATISTICS, color_texture

_LEAST_STD = 1e-4  # what varies less has no unit
_RIDGE = (0.01, 0.03)  # of the mean variance of image and gene features
_NUM_COMPONENTS = 20


class StatisticsEncoder(Configurable):
    """Colours and textures of crops, as a frozen encoder; see :func:`~spatiagraph.nn.color_texture`.

    Shapes:
        - **image**: crops in ``[0, 1]``, ``[N, C, H, W]``, with sides of 32 pixels or more
        - **output**: ``[N, 39]``
    """  # noqa: E501

    name = "color_texture"
    size_px = 64
    """Side of the crops to read."""
    channels = NUM_STATISTICS

    def forward(self, image: Tensor) -> Tensor:
        return color_texture(image.double()).float()


class CanonicalStart(Configurable):
    r"""Two linear maps to one space, started from regularised canonical correlations.

    .. math::
        \mathbf{a} = \mathbf{A}^\top (\mathbf{f} - \bar{\mathbf{f}}) + \boldsymbol\gamma_a \odot
        \mathrm{head}_a, \qquad
        \mathbf{b} = \mathbf{B}^\top (\mathbf{g} - \bar{\mathbf{g}}) + \boldsymbol\gamma_b \odot
        \mathrm{head}_b

    with :math:`\boldsymbol\gamma = 0` at the start, so that a contrast of two networks begins where
    linear maps end: few spots teach networks on pixels less than colours say. Both maps are
    trained on. What is fused has a map of its own, which starts as their sum.

    There are fewer correlations than dimensions. Both maps are turned by the same orthonormal
    matrix, which changes no product and no length, and spreads the correlations over all
    dimensions: one that is zero in both views would never have a gradient.

    Args:
        image_channels: Features of the image, :math:`F`.
        gene_channels: Features of the genes, :math:`G`.
        out_channels: Size of the space, :math:`P`.
        fused: Whether what is fused starts from both maps too, see :meth:`fuse`.

    Shapes:
        - **features**: ``[N, F]`` or ``[N, G]``
        - **learned**: output of a network, ``[N, P]``
        - **output**: ``[N, P]``
    """

    image_mean: Tensor
    gene_mean: Tensor

    def __init__(
        self, image_channels: int, gene_channels: int, out_channels: int, *, fused: bool = False
    ):
        super().__init__()
        self.image = nn.Linear(image_channels, out_channels, bias=False)
        self.genes = nn.Linear(gene_channels, out_channels, bias=False)
        self.gate = nn.Parameter(torch.zeros(out_channels))
        self.image_gate = nn.Parameter(torch.zeros(out_channels))
        self.fused: nn.Linear | None = None
        self.fused_gate: nn.Parameter | None = None
        if fused:  # a map of its own, which the contrast of image and genes does not pull at
            self.fused = nn.Linear(image_channels + gene_channels, out_channels, bias=False)
            self.fused_gate = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("image_mean", torch.zeros(image_channels))
        self.register_buffer("gene_mean", torch.zeros(gene_channels))

    def forward(self, features: Tensor, learned: Tensor, view: Literal["image", "genes"]) -> Tensor:
        if view == "image":
            return self.image(features - self.image_mean) + self.image_gate * learned
        return self.genes(features - self.gene_mean) + self.gate * learned

    def fuse(self, image: Tensor, genes: Tensor, learned: Tensor) -> Tensor:
        """Vector of both views, ``[N, P]``: a map of both, and a network beside it.

        Args:
            image: Features of the image, ``[N, F]``.
            genes: Features of the genes, ``[N, G]``.
            learned: Output of the network, ``[N, P]``; returned as it is where nothing is fused.
        """
        if self.fused is None or self.fused_gate is None:
            return learned
        both = torch.cat([image - self.image_mean, genes - self.gene_mean], 1)
        return self.fused(both) + self.fused_gate * learned

    @property
    def maps(self) -> list[nn.Linear]:
        """Linear maps, of the image, of the genes and of both where something is fused."""
        return [m for m in (self.image, self.genes, self.fused) if m is not None]

    @torch.no_grad()
    def initialize(self, image: Tensor, genes: Tensor) -> None:
        """Start from the canonical correlations of both views of some spots.

        Args:
            image: Features of the images, ``[N, F]``.
            genes: Features of the genes, ``[N, G]``.

        Raises:
            ValueError: With fewer than three spots.
        """
        if len(image) != len(genes) or len(image) < 3:
            raise ValueError(
                f"Expected both views of at least 3 spots to start from, got {len(image)} images "
                f"and {len(genes)} profiles"
            )
        image, genes = image.double(), genes.double()
        self.image_mean.copy_(image.mean(0))
        self.gene_mean.copy_(genes.mean(0))
        std = image.std(0)
        scale = torch.where(std > _LEAST_STD, 1 / std.clamp(min=_LEAST_STD), 0.0)
        genes = genes - genes.mean(0)
        _, _, components = torch.linalg.svd(genes, full_matrices=False)
        basis = components[: min(_NUM_COMPONENTS, len(image) - 1)].T
        num_out = self.image.out_features
        maps = canonical_maps((image - image.mean(0)) * scale, genes @ basis, num_out)
        turn = _orthonormal(num_out, maps.a.size(1)).to(image)
        for linear, weight in ((self.image, scale[:, None] * maps.a), (self.genes, basis @ maps.b)):
            linear.weight.copy_(turn @ weight.T)
        if self.fused is not None:
            self.fused.weight.copy_(torch.cat([self.image.weight, self.genes.weight], 1))


class CanonicalMaps(NamedTuple):
    """Maps of two views to their canonical variables.

    Attributes:
        a: Of the first, ``[F, K]``.
        b: Of the second, ``[G, K]``.
        correlation: Of each pair of variables, regularised, ``[K]``.
    """

    a: Tensor
    b: Tensor
    correlation: Tensor


def canonical_maps(
    x: Tensor, y: Tensor, rank: int, *, ridge: tuple[float, float] = _RIDGE
) -> CanonicalMaps:
    r"""Regularised canonical correlation analysis of two centred views.

    Variables are weighted by the root of their correlation, so that inner products of the two sides
    are :math:`\sum_k \rho_k u_k v_k`.

    Args:
        x: One view, centred, ``[N, F]``.
        y: The other, ``[N, G]``.
        rank: Pairs of variables, at most.
        ridge: Shares of the mean variance of either that are added to all variances.

    Examples:
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]).double()
        >>> canonical_maps(x, 3 * x[:, :1], 1, ridge=(0.0, 0.0)).correlation.round(decimals=4)
        tensor([1.], dtype=torch.float64)
    """
    wx, wy = (_inverse_root(v, share) for v, share in zip((x, y), ridge, strict=True))
    u, s, vt = torch.linalg.svd(wx @ (x.T @ y / len(x)) @ wy, full_matrices=False)
    k = min(rank, len(s))
    root = s[:k].sqrt()
    return CanonicalMaps(wx @ u[:, :k] * root, wy @ vt[:k].T * root, s[:k])


def _orthonormal(rows: int, columns: int) -> Tensor:
    """Columns of length 1 at right angles, the same in every call, ``[rows, columns]``."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(drawn).Q


def _inverse_root(x: Tensor, share: float) -> Tensor:
    """Inverse root of the covariance of a view; directions without variance are left out."""
    covariance = x.T @ x / len(x)
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0) + share * values.clamp(min=0).mean()
    least = 1e-9 * values.max().clamp(min=1e-30)
    root = torch.where(values > least, values.clamp(min=least).rsqrt(), 0.0)
    return vectors * root @ vectors.T
