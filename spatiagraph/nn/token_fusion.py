"""Fusion of the gene tokens and the image tokens of a cell; either may be missing.

Shape letters: ``N`` cells, ``T`` gene tokens (cell tokens first), ``S`` image tokens (class token
first), ``D`` channels of genes, ``I`` channels of images.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable
from spatiagraph.nn.cross_attention import CrossAttention
from spatiagraph.nn.fusion import fill_missing

Direction = Literal["both", "gene_queries", "image_queries"]
Residual = Literal["corrected", "double"]


class FusedTokens(NamedTuple):
    """One vector per cell, and both streams after they saw each other.

    Attributes:
        cell: Cell embedding, ``[N, out_channels]``.
        genes: Gene stream informed by the image, ``[N, T, D]``; counts are decoded from it.
        image: Image stream informed by the genes, ``[N, S, I]``; pixels are decoded from it.
    """

    cell: Tensor
    genes: Tensor
    image: Tensor


class TokenFusion(Configurable):
    r"""Gene tokens attend to image tokens and image tokens to gene tokens, as in SPATIA.

    With query :math:`\mathbf{q}` a stream and :math:`\mathbf{h}` the result of one
    :class:`~spatiagraph.nn.cross_attention.CrossAttention` on the other stream, a linear map of
    which gives keys and values, the fused stream is

    .. math::
        \mathbf{q} + w (\mathbf{h} - \mathbf{q}).

    Both directions read the other stream as it came in. The cell embedding is a linear map of

    .. math::
        [\,\mathrm{mean\ of\ fused\ cell\ tokens};\ w \cdot \mathrm{fused\ class\ token}\,],

    so that with :math:`w = 0` it is that of genes alone. Where a modality is missing, a learned
    null token stands for its stream and its half of the embedding
    (`arXiv:2507.04704 <https://arxiv.org/abs/2507.04704>`_).

    Args:
        gene_channels: Size of gene tokens, :math:`D`.
        image_channels: Size of image tokens, :math:`I`.
        out_channels: Size of the cell embedding.
        num_cell_tokens: Cell tokens at the head of the gene stream.
        heads: Attention heads of both directions.
        weight: :math:`w`, from 0 (no fusion) to 1.
        direction: Whose fused tokens enter the cell embedding: ``"gene_queries"`` takes the cell
            tokens alone, as the public code stresses, ``"image_queries"`` the class token alone
            and without :math:`w`, as the paper states. Both streams are fused in any case.
        residual: ``"corrected"`` as above; ``"double"`` is
            :math:`\mathbf{q} + w \mathbf{h}` as in the public code, which counts the query twice.
        dropout: Dropout on attention weights, in the MLP and after both.

    Shapes:
        - **genes**: ``[N, T, D]`` or ``None``
        - **image**: ``[N, S, I]`` or ``None``
        - **gene_pad**: True where a gene token holds nothing, ``[N, T]``; cell tokens always do
        - **gene_present**, **image_mask**: cells with that modality, ``[N]`` bool, or ``None``
          for all
        - **output**: :class:`FusedTokens`

    Raises:
        ValueError: If an option is unknown, both modalities are missing, or streams do not fit.
    """

    def __init__(
        self,
        gene_channels: int,
        image_channels: int,
        out_channels: int = 512,
        *,
        num_cell_tokens: int = 2,
        heads: int = 4,
        weight: float = 1.0,
        direction: Direction = "both",
        residual: Residual = "corrected",
        dropout: float = 0.1,
    ):
        super().__init__()
        if direction not in ("both", "gene_queries", "image_queries"):
            raise ValueError(
                f"Expected 'direction' both, gene_queries or image_queries, got {direction!r}"
            )
        if residual not in ("corrected", "double"):
            raise ValueError(f"Expected 'residual' corrected or double, got {residual!r}")
        if not 0 <= weight <= 1:
            raise ValueError(f"Expected a fusion 'weight' from 0 to 1, got {weight}")
        self.num_cell_tokens = num_cell_tokens
        self.weight = weight
        self.direction = direction
        self.residual = residual
        self.gene_null = nn.Parameter(torch.randn(gene_channels) * 0.02)
        self.image_null = nn.Parameter(torch.randn(image_channels) * 0.02)
        self.fuse_genes = CrossAttention(
            gene_channels, heads, memory_channels=image_channels, dropout=dropout
        )
        self.fuse_image = CrossAttention(
            image_channels, heads, memory_channels=gene_channels, dropout=dropout
        )
        read = {
            "both": gene_channels + image_channels,
            "gene_queries": gene_channels,
            "image_queries": image_channels,
        }
        self.project = nn.Linear(read[direction], out_channels)

    def forward(
        self,
        genes: Tensor | None,
        image: Tensor | None,
        *,
        gene_pad: Tensor | None = None,
        gene_present: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> FusedTokens:
        self._check(genes, image, gene_pad)
        num_cells = next(len(given) for given in (genes, image) if given is not None)
        if genes is None:
            gene_present = torch.zeros(num_cells, dtype=torch.bool, device=self.gene_null.device)
            genes, gene_pad = self.gene_null.expand(num_cells, self.num_cell_tokens, -1), None
        if image is None:
            image_mask = torch.zeros(num_cells, dtype=torch.bool, device=self.gene_null.device)
            image = self.image_null.expand(num_cells, 1, -1)
        genes = fill_missing(genes, self.gene_null, gene_present)
        image = fill_missing(image, self.image_null, image_mask)
        fused_genes = self._residual(genes, self.fuse_genes(genes, image))
        fused_image = self._residual(image, self.fuse_image(image, genes, gene_pad))
        pooled = fused_genes[:, : self.num_cell_tokens].mean(1)
        halves = {
            "gene_queries": fill_missing(pooled, self.gene_null, gene_present),
            "image_queries": fill_missing(fused_image[:, 0], self.image_null, image_mask),
        }
        if self.direction == "both":
            weighted = [halves["gene_queries"], self.weight * halves["image_queries"]]
            cell = self.project(torch.cat(weighted, -1))
        else:
            cell = self.project(halves[self.direction])
        return FusedTokens(cell, fused_genes, fused_image)

    def _residual(self, query: Tensor, change: Tensor) -> Tensor:
        if self.residual == "double":
            change = query + change
        return query + self.weight * change

    def _check(self, genes: Tensor | None, image: Tensor | None, gene_pad: Tensor | None) -> None:
        """Refuse streams that do not fit."""
        if genes is None and image is None:
            raise ValueError("Expected genes, an image or both, got neither")
        if genes is not None and (genes.dim() != 3 or genes.size(1) < self.num_cell_tokens):
            raise ValueError(
                f"Expected gene tokens [N, {self.num_cell_tokens} cell tokens or more, "
                f"{self.gene_null.numel()}], got {list(genes.shape)}"
            )
        if image is not None and image.dim() != 3:
            raise ValueError(
                f"Expected image tokens [N, S, {self.image_null.numel()}], got {list(image.shape)}"
            )
        if genes is not None and image is not None and len(genes) != len(image):
            raise ValueError(
                f"Expected tokens of the same cells, got genes of {len(genes)} and images of "
                f"{len(image)}"
            )
        if genes is not None and gene_pad is not None and gene_pad.shape != genes.shape[:2]:
            raise ValueError(
                f"Expected 'gene_pad' {list(genes.shape[:2])} as the gene stream, cell tokens "
                f"included, got {list(gene_pad.shape)}"
            )

    def extra_repr(self) -> str:
        return f"weight={self.weight}, direction={self.direction!r}, residual={self.residual!r}"
