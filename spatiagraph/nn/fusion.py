"""Fusion of the gene and the image vector of a cell; either may be missing.

Every fusion starts as the identity on the genes and learns what the image adds. A missing
modality is replaced by a learned null token, never by zeros.
"""

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable
from spatiagraph.nn.cross_attention import CrossAttention


def fill_missing(tokens: Tensor, null: Tensor, present: Tensor | None) -> Tensor:
    """Tokens of each cell, with a learned one where the cell has none.

    Args:
        tokens: ``[N, D]`` or ``[N, T, D]``.
        null: The learned token, ``[D]``.
        present: Cells that have this modality, ``[N]`` bool; ``None`` for all.
    """
    if present is None:
        return tokens
    return torch.where(present.view(-1, *[1] * (tokens.dim() - 1)), tokens, null)


def scatter_present(part: Tensor, present: Tensor) -> Tensor:
    """Rows of the cells that have a modality, at their rows among all cells; zeros elsewhere.

    Args:
        part: One row per cell that has it, ``[n, ...]``.
        present: Cells that have it, ``[N]`` bool.
    """
    whole = part.new_zeros(len(present), *part.shape[1:])
    return whole.masked_scatter(present.view(-1, *[1] * (part.dim() - 1)), part)


class _Fusion(Configurable, abstract=True):
    """The null tokens, and the rule that pixels of a missing image are never looked at."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.gene_null = nn.Parameter(torch.zeros(channels))
        self.image_null = nn.Parameter(torch.randn(channels) * 0.02)

    def fill(
        self,
        genes: Tensor | None,
        image: Tensor | None,
        gene_present: Tensor | None,
        image_mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Genes ``[N, D]`` and image tokens ``[N, T, D]`` with null tokens where missing."""
        if image is not None and image.dim() == 2:
            image = image.unsqueeze(1)
        if genes is None:
            if image is None:
                raise ValueError("Expected genes, an image or both, got neither")
            genes = self.gene_null.expand(image.size(0), -1)
        else:
            genes = fill_missing(genes, self.gene_null, gene_present)
        if image is None:
            image = self.image_null.expand(genes.size(0), 1, -1)
        else:
            image = fill_missing(image, self.image_null, image_mask)
        return genes, image


class ConcatFusion(_Fusion):
    r"""Genes plus an MLP of both modalities: :math:`\mathbf{g} + \mathrm{MLP}([\mathbf{g}, \bar{\mathbf{i}}])`.

    Args:
        channels: Size of both inputs and of the output, :math:`D`.

    Shapes:
        - **genes**: ``[N, D]`` or ``None``
        - **image**: ``[N, D]``, ``[N, T, D]`` or ``None``
        - **gene_present**, **image_mask**: ``[N]`` bool, or ``None`` for all
        - **output**: ``[N, D]``
    """  # noqa: E501

    def __init__(self, channels: int):
        super().__init__(channels)
        self.norm = nn.LayerNorm(2 * channels)
        last = nn.Linear(2 * channels, channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.mlp = nn.Sequential(nn.Linear(2 * channels, 2 * channels), nn.GELU(), last)

    def forward(
        self,
        genes: Tensor | None,
        image: Tensor | None,
        gene_present: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        genes, image = self.fill(genes, image, gene_present, image_mask)
        return genes + self.mlp(self.norm(torch.cat([genes, image.mean(1)], -1)))


class GateFusion(_Fusion):
    r"""Genes plus a gated image: :math:`\mathbf{g} + \boldsymbol\gamma \odot \sigma(\cdot) \odot \mathbf{W} \bar{\mathbf{i}}`.

    The gate :math:`\sigma(\mathbf{U}[\mathbf{g}, \bar{\mathbf{i}}])` opens per cell and channel;
    :math:`\boldsymbol\gamma` starts at zero. Arguments and shapes as in :class:`ConcatFusion`.
    """  # noqa: E501

    def __init__(self, channels: int):
        super().__init__(channels)
        self.gate = nn.Linear(2 * channels, channels)
        self.value = nn.Linear(channels, channels)
        self.scale = nn.Parameter(torch.zeros(channels))

    def forward(
        self,
        genes: Tensor | None,
        image: Tensor | None,
        gene_present: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        genes, image = self.fill(genes, image, gene_present, image_mask)
        pooled = image.mean(1)
        gate = torch.sigmoid(self.gate(torch.cat([genes, pooled], -1)))
        return genes + self.scale * gate * self.value(pooled)


class CrossModalFusion(_Fusion):
    r"""Genes attend to image tokens, as in `SPATIA <https://arxiv.org/abs/2507.04704>`_.

    With query :math:`\mathbf{q}` the gene vector and :math:`\mathbf{h}` the result of one
    :class:`~spatiagraph.nn.cross_attention.CrossAttention`, the output is
    :math:`\mathbf{q} + \mathbf{w} \odot (\mathbf{h} - \mathbf{q})`, with weights
    :math:`\mathbf{w}` that start at zero. :class:`~spatiagraph.nn.token_fusion.TokenFusion` does
    the same for streams of tokens. Arguments and shapes as in :class:`ConcatFusion`.

    Args:
        channels: Size of both inputs and of the output, :math:`D`.
        heads: Attention heads.
        dropout: Dropout on attention weights and in the MLP.
    """

    def __init__(self, channels: int, *, heads: int = 4, dropout: float = 0.0):
        super().__init__(channels)
        self.attend = CrossAttention(channels, heads, mlp_ratio=2.0, dropout=dropout)
        self.weight = nn.Parameter(torch.zeros(channels))

    def forward(
        self,
        genes: Tensor | None,
        image: Tensor | None,
        gene_present: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Tensor:
        genes, image = self.fill(genes, image, gene_present, image_mask)
        return genes + self.weight * self.attend(genes.unsqueeze(1), image).squeeze(1)
