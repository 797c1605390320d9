"""Signatures of the exchangeable parts: a module that has one can take the place of ours."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from spatiagraph.nn.cell_graph import Cells
from spatiagraph.nn.gene_tokens import GeneTokens
from spatiagraph.nn.image import ImageTokens


class Pooled(NamedTuple):
    """Groups made by a pooling.

    Attributes:
        h: Group features, ``[M, D]``.
        assignment: Group of each member, ``[N]``; -1 where a member has none. ``None`` where
            members belong to several.
        loss: Auxiliary loss of a learned pooling, or ``None``.
        batch: Slide of each group, ``[M]``, from a pooling that assigns; ``None`` from others.
    """

    h: Tensor
    assignment: Tensor | None
    loss: Tensor | None = None
    batch: Tensor | None = None


@runtime_checkable
class Pooling(Protocol):
    """Members → groups. One that ``assigns`` makes groups of its own, each inside one slide."""

    assigns: bool

    def __call__(
        self,
        h: Tensor,
        index: Tensor,
        num_groups: int | None = None,
        *,
        edge_index: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Pooled:
        """Pool ``h [N, D]`` by ``index``, or by ``edge_index`` within the slides of ``batch``."""
        ...


@runtime_checkable
class GeneEncoding(Protocol):
    """Counts of each cell → vectors."""

    def __call__(self, x: Tensor, gene_mask: Tensor | None, depth: Tensor | None) -> Tensor:
        """Encode counts ``x [N, G]`` of the genes in ``gene_mask``, ``[N, D]``."""
        ...


@runtime_checkable
class ImageEncoding(Protocol):
    """Crop of each cell → vectors or tokens."""

    def __call__(self, image: Tensor) -> Tensor:
        """Encode crops ``[N, C, H, W]`` in [0, 1], ``[N, D]`` or ``[N, T, D]``."""
        ...


@runtime_checkable
class ImageTokenEncoding(Protocol):
    """Crop of each cell → tokens, a class token or what stands for it first."""

    channels: int
    reads_window: bool

    def image_tokens(
        self,
        image: Tensor,
        window_um: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> ImageTokens:
        """Encode crops ``[N, C, H, W]`` in [0, 1] as tokens ``[N, 1 + V, D]``."""
        ...


@runtime_checkable
class GeneTokenEncoding(Protocol):
    """Genes of each cell and their values → tokens, those of the cell first."""

    num_genes: int
    channels: int
    num_cell_tokens: int

    def __call__(
        self,
        gene_ids: Tensor,
        counts: Tensor | None = None,
        depth: Tensor | None = None,
        pad: Tensor | None = None,
        value_mask: Tensor | None = None,
        *,
        cell_tokens: Tensor | None = None,
    ) -> GeneTokens:
        """Encode genes ``[N, L]`` as tokens ``[N, T + L, D]``."""
        ...

    def label_tokens(self, stream: Tensor, num_labels: int) -> Tensor:
        """Token that each label is read from, ``[N, K, D]``."""
        ...


@runtime_checkable
class Fusion(Protocol):
    """Genes and image of each cell → one vector; either may be missing."""

    def __call__(
        self,
        genes: Tensor | None,
        image: Tensor | None,
        gene_present: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        """Fuse ``genes [N, D]`` with ``image [N, D]`` or ``[N, T, D]``, ``[N, D]``."""
        ...


@runtime_checkable
class CellEncoding(Protocol):
    """Genes and image of each cell → one vector, before any context."""

    @property
    def reads_window(self) -> bool:
        """True if the size of the window of each crop is read."""
        ...

    @property
    def genes(self) -> object | None:
        """Encoder of genes; ``None`` where they are not read."""
        ...

    @property
    def image(self) -> object | None:
        """Encoder of images; ``None`` where they are not read."""
        ...

    def __call__(self, cells: Cells) -> Tensor:
        """Encode measurements of cells, ``[N, D]``."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters, as of any module."""
        ...
