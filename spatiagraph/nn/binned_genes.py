"""Gene encoder on binned values: the expressed genes of each cell, each with its quantile bin.

Shape letters: ``N`` cells, ``L`` gene tokens, ``D`` channels, ``G`` genes.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from spatiagraph.nn.config import Configurable
from spatiagraph.nn.gene_tokens import GeneTokens, check_as_genes
from spatiagraph.nn.token_transformer import TokenTransformer

MAX_BIN = 512.0
"""Values above are taken for this one."""
HIDDEN = -1.0
"""Value of a gene whose bin is hidden."""


class BinnedGeneEncoder(Configurable):
    r"""Transformer over the expressed genes of a cell and their bins, the other branch of SPATIA.

    ``<cls>`` comes first, with value 0; then a token per expressed gene, the sum of what the gene
    is (a table and a norm) and its value (an MLP of the bin and a norm); post-norm layers with
    ReLU, as in `"scGPT" <https://doi.org/10.1038/s41592-024-02201-0>`_ and `SPATIA
    <https://arxiv.org/abs/2507.04704>`_. Takes the place of
    :class:`~spatiagraph.nn.GeneTokenEncoder` in a :class:`~spatiagraph.nn.TokenCellEncoder`, with
    ``tokenizer="bins"``. Depth is not told: bins have none.

    Args:
        num_genes: Panel size, :math:`G`.
        channels: Size of each token, :math:`D`.
        num_layers: Transformer layers.
        heads: Attention heads.
        hidden_channels: Width of the MLPs of the layers.
        num_bins: Bins of a cell, that of zeros included.
        num_tokens: Expressed genes of a cell that become tokens at most, for who draws them; the
            published number by default, ``None`` for all.
        dropout: Dropout everywhere.

    Attributes:
        num_cell_tokens: 1.
        gene_scale: Usual value of each gene where it is expressed, ``[G]``: values are divided by
            it before they are binned; see :meth:`set_gene_scale`.

    Shapes:
        - **gene_ids**: rows of the panel, ``[N, L]``; any on padding
        - **counts**: bins of their values, ``[N, L]``; ``None`` for genes without expression
        - **depth**: not read
        - **pad**: True where a token holds no gene, ``[N, L]``
        - **value_mask**: True where the bin is hidden: its value is -1, ``[N, L]``
        - **cell_tokens**: use these instead of the learned one, ``[N, 1, D]``
        - **named**: True where only the gene is known, and nothing said of its value, ``[N, L]``

    Raises:
        ValueError: If the shapes of a batch do not fit together.

    Examples:
        >>> encoder = BinnedGeneEncoder(30, 16, num_layers=1, heads=2, hidden_channels=16)
        >>> encoder(torch.tensor([[4, 7, 2]]), torch.tensor([[1.0, 50.0, 3.0]])).tokens.shape
        torch.Size([1, 4, 16])
    """

    num_cell_tokens = 1
    gene_scale: Tensor

    def __init__(
        self,
        num_genes: int,
        channels: int = 512,
        *,
        num_layers: int = 12,
        heads: int = 8,
        hidden_channels: int = 512,
        num_bins: int = 51,
        num_tokens: int | None = 1200,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.num_genes = num_genes
        self.channels = channels
        self.num_bins = num_bins
        self.num_tokens = num_tokens
        self.identity = nn.Embedding(num_genes + 1, channels)  # the last row is <cls>
        self.norm = nn.LayerNorm(channels)
        self.value = nn.Sequential(
            nn.Linear(1, channels),
            nn.ReLU(),
            nn.Linear(channels, channels),
            nn.LayerNorm(channels),
            nn.Dropout(dropout),
        )
        self.transformer = TokenTransformer(
            channels,
            num_layers,
            heads,
            dropout=dropout,
            hidden_channels=hidden_channels,
            pre_norm=False,
            activation="relu",
        )
        self.register_buffer("gene_scale", torch.ones(num_genes))

    @torch.no_grad()
    def set_gene_scale(self, slides: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Take the mean of each gene over the cells that express it.

        Values of a slide are divided by the mean of those that are not 0, so that deep slides do
        not count for more. The scale of a slide itself changes no bin: bins are those of a cell.

        Args:
            slides: Values of some cells of each slide, ``[N, G]``, and the genes that were
                measured, ``[G]``, ``[N, G]`` or ``None`` for all.
        """
        total = torch.zeros(self.num_genes, dtype=torch.float64)
        number = torch.zeros(self.num_genes, dtype=torch.float64)
        for x, gene_mask in slides:
            seen = x > 0 if gene_mask is None else (x > 0) & gene_mask
            values = torch.where(seen, x, 0).double()
            total += values.sum(0) / (values.sum() / seen.sum().clamp(min=1)).clamp(min=1e-12)
            number += seen.sum(0)
        scale = torch.where(number > 0, total / number.clamp(min=1), 1.0)
        self.gene_scale.copy_(scale.to(self.gene_scale))

    def embed_genes(self, gene_ids: Tensor) -> Tensor:
        """Embed genes without a value, ``[..., D]``."""
        return self.norm(self.identity(gene_ids))

    def label_tokens(self, stream: Tensor, num_labels: int) -> Tensor:
        """Token that each label is read from: ``<cls>`` for all, ``[N, K, D]``.

        Args:
            stream: Gene stream, ``[N, 1 + L, D]``.
            num_labels: Number of labels, :math:`K`.
        """
        return stream[:, :1].expand(-1, num_labels, -1)

    def forward(
        self,
        gene_ids: Tensor,
        counts: Tensor | None = None,
        depth: Tensor | None = None,
        pad: Tensor | None = None,
        value_mask: Tensor | None = None,
        *,
        cell_tokens: Tensor | None = None,
        named: Tensor | None = None,
    ) -> GeneTokens:
        check_as_genes(gene_ids, counts=counts, pad=pad, value_mask=value_mask, named=named)
        tokens = self.embed_genes(gene_ids)
        if counts is not None:
            bins = counts.to(tokens.dtype).clamp(max=MAX_BIN)
            bins = bins if value_mask is None else bins.masked_fill(value_mask, HIDDEN)
            values = self.value(bins.unsqueeze(-1))
            tokens = tokens + (values if named is None else values * ~named.unsqueeze(-1))
        num = len(gene_ids)
        cls = self._cls(num) if cell_tokens is None else cell_tokens
        if cls.shape != (num, 1, self.channels):
            raise ValueError(
                f"Expected 'cell_tokens' [{num}, 1, {self.channels}], got {list(cls.shape)}"
            )
        if pad is not None:
            pad = torch.cat([pad.new_zeros(num, 1), pad], 1)
        tokens = self.transformer(torch.cat([cls.to(tokens.dtype), tokens], 1), pad)
        return GeneTokens(tokens, pad, 1)

    def _cls(self, num_cells: int) -> Tensor:
        """``<cls>`` with value 0, ``[N, 1, D]``."""
        weight = self.identity.weight
        first = self.norm(weight[-1]) + self.value(weight.new_zeros(1))
        return first.expand(num_cells, 1, -1)

    def extra_repr(self) -> str:
        return f"{self.num_genes}, {self.channels}, num_bins={self.num_bins}"
