"""Attention-based fusion: image and gene tokens attend to each other, concatenated.

Shape letters: ``N`` spots, ``Q`` queries, ``T`` tokens, ``H`` heads, ``D`` channels.
"""

from typing import NamedTuple

from torch import Tensor, cat, nn
from torch.nn.functional import scaled_dot_product_attention

from spatiagraph.nn.config import Configurable


class AttentionMaps(NamedTuple):
    """Attention of the tokens of each modality to those of the other; rows sum to 1.

    Attributes:
        image: Of image tokens to gene tokens, ``[N, H, T, T]``.
        genes: Of gene tokens to image tokens, ``[N, H, T, T]``.
    """

    image: Tensor
    genes: Tensor


class TokenAttention(Configurable):
    """Cross-attention between normed tokens and nothing else: no residual, no MLP.

    Args:
        channels: Size of tokens, :math:`D`.
        heads: Attention heads, :math:`H`.
        head_channels: Size of each head.
        dropout: Dropout on attention weights and after the output.

    Shapes:
        - **query**: ``[N, Q, D]``
        - **context**: ``[N, T, D]``
        - **output**: ``[N, Q, D]``
    """

    def __init__(
        self, channels: int, heads: int = 8, head_channels: int = 64, *, dropout: float = 0.0
    ):
        super().__init__()
        width = heads * head_channels
        self.heads = heads
        self.norm_query = nn.LayerNorm(channels)
        self.norm_context = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, width, bias=False)
        self.key = nn.Linear(channels, width, bias=False)
        self.value = nn.Linear(channels, width, bias=False)
        self.out = nn.Linear(width, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, context: Tensor) -> Tensor:
        q, k = self._query_and_key(query, context)
        v = self._by_head(self.value(self.norm_context(context)))
        share = self.dropout.p if self.training else 0.0
        message = scaled_dot_product_attention(q, k, v, dropout_p=share)
        return self.dropout(self.out(message.transpose(1, 2).flatten(2)))

    def attention(self, query: Tensor, context: Tensor) -> Tensor:
        """Share of each context token in the answer to each query, ``[N, H, Q, T]``.

        Args:
            query: ``[N, Q, D]``.
            context: ``[N, T, D]``.
        """
        q, k = self._query_and_key(query, context)
        return (q @ k.transpose(2, 3) / q.size(3) ** 0.5).softmax(3)

    def _query_and_key(self, query: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        q, k = self.query(self.norm_query(query)), self.key(self.norm_context(context))
        return self._by_head(q), self._by_head(k)

    def _by_head(self, h: Tensor) -> Tensor:
        return h.unflatten(2, (self.heads, -1)).transpose(1, 2)  # [N, H, T, D / H]


class ABFN(Configurable):
    r"""Attention-based fusion network of `ST-Align <https://arxiv.org/abs/2411.16793>`_.

    .. math::
        \mathbf{A}_I = \mathrm{Attn}(\mathbf{I}, \mathbf{E}), \quad
        \mathbf{A}_E = \mathrm{Attn}(\mathbf{E}, \mathbf{I}), \quad
        \mathbf{Z} = \mathrm{LN}([\mathrm{MLP}_I(\mathbf{A}_I) \,\|\, \mathrm{MLP}_E(\mathbf{A}_E)])

    Args:
        channels: Size of tokens, :math:`D`; even.
        heads: Attention heads.
        head_channels: Size of each head.
        hidden_channels: Width of the MLPs.
        dropout: Dropout of the attention.

    Shapes:
        - **image**: image tokens, ``[N, T, D]``
        - **genes**: gene tokens, ``[N, T, D]``
        - **output**: ``[N, T, D]``, the half of the image first

    Raises:
        ValueError: If ``channels`` is odd.
    """

    def __init__(
        self,
        channels: int = 512,
        heads: int = 8,
        head_channels: int = 64,
        *,
        hidden_channels: int = 64,
        dropout: float = 0.1,
    ):
        super().__init__()
        if channels % 2:
            raise ValueError(f"Expected an even number of channels, got {channels}")
        self.image_attention = TokenAttention(channels, heads, head_channels, dropout=dropout)
        self.gene_attention = TokenAttention(channels, heads, head_channels, dropout=dropout)
        self.image_mlp, self.gene_mlp = (
            nn.Sequential(
                nn.Linear(channels, hidden_channels),
                nn.GELU(),
                nn.Linear(hidden_channels, channels // 2),
            )
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, image: Tensor, genes: Tensor) -> Tensor:
        of_image = self.image_mlp(self.image_attention(image, genes))
        of_genes = self.gene_mlp(self.gene_attention(genes, image))
        return self.norm(cat([of_image, of_genes], 2))

    def maps(self, image: Tensor, genes: Tensor) -> AttentionMaps:
        """Attention of both modalities, which the forward pass does not keep.

        Args:
            image: Image tokens, ``[N, T, D]``.
            genes: Gene tokens, ``[N, T, D]``.
        """
        return AttentionMaps(
            self.image_attention.attention(image, genes),
            self.gene_attention.attention(genes, image),
        )


class ProjectionHead(Configurable):
    """MLP of all tokens of a spot to one vector, in which spots are compared.

    Args:
        channels: Size of tokens, :math:`D`.
        num_tokens: Tokens, :math:`T`.
        hidden_channels: Width of the MLP.
        out_channels: Size of the output, :math:`P`.

    Shapes:
        - **tokens**: ``[N, T, D]``
        - **output**: ``[N, P]``
    """

    def __init__(
        self,
        channels: int = 512,
        num_tokens: int = 8,
        *,
        hidden_channels: int = 2048,
        out_channels: int = 1024,
    ):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(num_tokens * channels, hidden_channels),
            nn.ReLU(),
            nn.Linear(hidden_channels, out_channels),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return self.mlp(tokens.flatten(1))
