"""Gene encoder on tokens: the sampled counts of each cell → one vector per gene and cell token.

Shape letters: ``N`` cells, ``L`` gene tokens, ``T`` cell tokens, ``D`` channels, ``G`` genes.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable
from spatiagraph.nn.genomic_position import GenomicPosition
from spatiagraph.nn.token_transformer import TokenTransformer

Normalization = Literal["sum", "log2p1", "none"]
MAX_VALUE = 1e5
"""Values above are taken for this one."""


class GeneTokens(NamedTuple):
    """Token stream of each cell: cell tokens first, then one token per gene.

    Attributes:
        tokens: ``[N, T + L, D]``.
        pad: True where a token holds no gene, ``[N, T + L]``; ``None`` if all do.
        num_cell_tokens: :math:`T`.
    """

    tokens: Tensor
    pad: Tensor | None
    num_cell_tokens: int

    @property
    def cell_tokens(self) -> Tensor:
        """Global token, depth token, then one per label, ``[N, T, D]``."""
        return self.tokens[:, : self.num_cell_tokens]

    @property
    def label_tokens(self) -> Tensor:
        """One token per supervised label, ``[N, T - 2, D]``."""
        return self.tokens[:, 2 : self.num_cell_tokens]

    @property
    def gene_tokens(self) -> Tensor:
        """One token per gene, in the order they came, ``[N, L, D]``."""
        return self.tokens[:, self.num_cell_tokens :]


def check_as_genes(gene_ids: Tensor, **given: Tensor | None) -> None:
    """Refuse what is not of each gene token.

    Args:
        gene_ids: Rows of the panel, ``[N, L]``.
        **given: Tensors that must have this shape as well, by name; ``None`` for those not given.

    Raises:
        ValueError: If one has another shape.
    """
    for name, value in given.items():
        if value is not None and value.shape != gene_ids.shape:
            raise ValueError(
                f"Expected {name!r} of shape {list(gene_ids.shape)} as 'gene_ids', got "
                f"{list(value.shape)}"
            )


class GeneTokenEncoder(Configurable):
    r"""Transformer over genes and their counts, the count branch of SPATIA.

    A gene token is the sum of what the gene is (a table), how much of it there is (an MLP of the
    normalised count) and where it lies on the genome (a fixed code). Before them stand cell tokens:
    a global one, one that tells the depth by an MLP of :math:`\log_2(1 + \mathrm{depth})`, and one
    per supervised label (`arXiv:2507.04704 <https://arxiv.org/abs/2507.04704>`_). The order of
    genes means nothing.

    Genes that were not measured do not belong into the tokens, see
    :func:`spatiagraph.nn.sample_genes`; cells with fewer genes than others are padded.

    Args:
        num_genes: Panel size, :math:`G`.
        channels: Size of each token, :math:`D`; even.
        num_labels: Supervised labels; there are :math:`T = 2 +` ``num_labels`` cell tokens.
        num_layers: Transformer layers.
        heads: Attention heads; the published configurations have 2, 4 and 8.
        mlp_ratio: Width of the MLPs over ``channels``.
        dropout: Dropout everywhere.
        normalization: ``"sum"`` divides each count by their sum over the visible tokens of the
            cell, at least 1; ``"log2p1"`` takes :math:`\log_2(1 + x)`; ``"none"`` leaves values
            that are prepared already, such as bins.
        freeze_genes: Leave the gene table as it is, see :meth:`set_gene_table`, and train the rest.

    Shapes:
        - **gene_ids**: rows of the panel, ``[N, L]``; any on padding
        - **counts**: their counts, ``[N, L]``; ``None`` for genes without expression
        - **depth**: total counts over all genes, before sampling, ``[N]``
        - **pad**: True where a token holds no gene, ``[N, L]``; ``None``, the fastest, if all do
        - **value_mask**: True where the count is hidden and only the gene known, ``[N, L]``
        - **cell_tokens**: use these instead of the learned ones and ``depth``, ``[N, T, D]``

    Raises:
        ValueError: If an option is unknown or the shapes of a batch do not fit together.

    Examples:
        >>> encoder = GeneTokenEncoder(30, 16, num_layers=1)
        >>> out = encoder(torch.tensor([[4, 7, 2]]), torch.tensor([[1, 0, 3]]), torch.tensor([9]))
        >>> out.cell_tokens.shape, out.gene_tokens.shape
        (torch.Size([1, 2, 16]), torch.Size([1, 3, 16]))
    """

    def __init__(
        self,
        num_genes: int,
        channels: int = 256,
        *,
        num_labels: int = 0,
        num_layers: int = 8,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.1,
        normalization: Normalization = "sum",
        freeze_genes: bool = False,
    ):
        super().__init__()
        if normalization not in ("sum", "log2p1", "none"):
            raise ValueError(f"Expected 'normalization' sum, log2p1 or none, got {normalization!r}")
        if channels % 2:
            raise ValueError(f"Expected an even number of 'channels', got {channels}")
        self.num_genes = num_genes
        self.channels = channels
        self.num_cell_tokens = 2 + num_labels
        self.normalization = normalization
        self.identity = nn.Embedding(num_genes, channels)
        self.identity.weight.requires_grad_(not freeze_genes)
        self.position = GenomicPosition(num_genes, channels)
        self.value = _scalar_mlp(channels, dropout)
        self.depth = _scalar_mlp(channels, dropout)
        self.cell = nn.Embedding(1 + num_labels, channels)  # global, then labels
        self.transformer = TokenTransformer(
            channels, num_layers, heads, mlp_ratio=mlp_ratio, dropout=dropout
        )

    @torch.no_grad()
    def set_gene_table(self, table: Tensor) -> None:
        """Set external gene embeddings, such as those of a protein language model.

        Args:
            table: One row per gene, ``[G, E]``; wider rows than ``channels`` are average-pooled.

        Raises:
            ValueError: If there is not one row per gene, or rows are too narrow or not finite.
        """
        if table.dim() != 2 or len(table) != self.num_genes or table.size(1) < self.channels:
            raise ValueError(
                f"Expected a gene table [{self.num_genes}, {self.channels} or more], got "
                f"{list(table.shape)}"
            )
        bad = (~table.isfinite().all(1)).nonzero().flatten()
        if len(bad):
            raise ValueError(
                f"Expected finite gene embeddings, got others for {len(bad)} genes (first: rows "
                f"{bad[:5].tolist()})"
            )
        pooled = nn.functional.adaptive_avg_pool1d(table.float(), self.channels)
        self.identity.weight.copy_(pooled)

    def label_tokens(self, stream: Tensor, num_labels: int) -> Tensor:
        """Token that each label is read from, its own, ``[N, K, D]``.

        Args:
            stream: Gene stream, ``[N, T + L, D]``.
            num_labels: Number of labels, :math:`K`.
        """
        return stream[:, 2 : 2 + num_labels]

    def normalize(self, counts: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Values as the network reads them, ``[N, L]``; ``hidden`` ones count for nothing."""
        counts = counts.to(self.identity.weight.dtype)
        if hidden is not None:
            counts = counts.masked_fill(hidden, 0.0)
        if self.normalization == "sum":
            return counts / counts.sum(1, keepdim=True).clamp(min=1.0)
        return torch.log2(1 + counts) if self.normalization == "log2p1" else counts

    def forward(
        self,
        gene_ids: Tensor,
        counts: Tensor | None = None,
        depth: Tensor | None = None,
        pad: Tensor | None = None,
        value_mask: Tensor | None = None,
        *,
        cell_tokens: Tensor | None = None,
    ) -> GeneTokens:
        check_as_genes(gene_ids, counts=counts, pad=pad, value_mask=value_mask)
        genes = self.identity(gene_ids) + self.position(gene_ids).to(self.identity.weight.dtype)
        if counts is not None:
            genes = genes + self._embed_counts(counts, pad, value_mask)
        cells = self._cell_tokens(len(gene_ids), depth) if cell_tokens is None else cell_tokens
        expected = (len(gene_ids), self.num_cell_tokens, self.channels)
        if cells.shape != expected:
            raise ValueError(f"Expected 'cell_tokens' {list(expected)}, got {list(cells.shape)}")
        if pad is not None:
            pad = torch.cat([pad.new_zeros(expected[:2]), pad], 1)
        tokens = self.transformer(torch.cat([cells, genes], 1), pad)
        return GeneTokens(tokens, pad, self.num_cell_tokens)

    def _embed_counts(self, counts: Tensor, pad: Tensor | None, hidden: Tensor | None) -> Tensor:
        """Embedding of each count, zero where it is hidden, ``[N, L, D]``."""
        unseen = pad if hidden is None else hidden if pad is None else pad | hidden
        value = self.normalize(counts, unseen).clamp(0.0, MAX_VALUE)
        embedded = self.value(value.unsqueeze(-1))
        return embedded if hidden is None else embedded.masked_fill(hidden.unsqueeze(-1), 0.0)

    def _cell_tokens(self, num_cells: int, depth: Tensor | None) -> Tensor:
        """Learned tokens around that of the depth, ``[N, T, D]``."""
        if depth is None or depth.shape != (num_cells,):
            raise ValueError(
                f"Expected the 'depth' of each of {num_cells} cells over all genes, got "
                f"{None if depth is None else list(depth.shape)}"
            )
        depth = torch.log2(1 + depth.to(self.identity.weight.dtype))
        depth = self.depth(depth.clamp(0.0, MAX_VALUE).view(-1, 1, 1))  # [N, 1, D]
        learned = self.cell.weight.expand(num_cells, -1, -1)
        return torch.cat([learned[:, :1], depth.to(learned.dtype), learned[:, 1:]], 1)

    def extra_repr(self) -> str:
        return f"{self.num_genes}, {self.channels}, normalization={self.normalization!r}"


def _scalar_mlp(channels: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(1, channels),
        nn.LayerNorm(channels),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(channels, channels),
    )
