"""Transformer with full attention on short token streams of each cell.

Shape letters: ``N`` cells, ``T`` tokens, ``D`` channels.
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from spatiagraph.nn.config import Configurable


class TokenTransformerLayer(Configurable):
    """One block of full self-attention and an MLP, with fused attention.

    Args:
        channels: Size of each token, :math:`D`.
        heads: Attention heads; must divide ``channels``.
        mlp_ratio: Width of the MLP over ``channels``.
        dropout: Dropout on attention weights, in the MLP and after both.
        head_channels: Size of each head, where ``heads`` do not share out ``channels``.
        hidden_channels: Width of the MLP, in place of ``mlp_ratio``.
        qkv_bias: Whether queries, keys and values have a bias.
        pre_norm: Normalise the input of both parts; ``False``, the sum with their output, as BERT.
        activation: Of the MLP.

    Shapes:
        - **h**: ``[N, T, D]``
        - **pad**: True where a token holds nothing and is not to be seen, ``[N, T]``
        - **output**: ``[N, T, D]``

    Raises:
        ValueError: If ``heads`` does not divide ``channels``.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        *,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        head_channels: int | None = None,
        hidden_channels: int | None = None,
        qkv_bias: bool = True,
        pre_norm: bool = True,
        activation: Literal["gelu", "relu"] = "gelu",
    ):
        super().__init__()
        if activation not in ("gelu", "relu"):
            raise ValueError(f"Expected 'activation' gelu or relu, got {activation!r}")
        if head_channels is None and channels % heads:
            raise ValueError(f"Expected 'heads' to divide {channels} channels, got {heads}")
        hidden = int(channels * mlp_ratio) if hidden_channels is None else hidden_channels
        inside = channels if head_channels is None else heads * head_channels
        self.heads = heads
        self.pre_norm = pre_norm
        self.norm_attention = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * inside, bias=qkv_bias)
        self.out = nn.Linear(inside, channels)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.GELU() if activation == "gelu" else nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, pad: Tensor | None = None) -> Tensor:
        inside = self.norm_attention(h) if self.pre_norm else h
        qkv = self.qkv(inside).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [N, heads, T, D / heads]
        message = scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if pad is None else ~pad[:, None, None],
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        h = h + self.dropout(self.out(message.transpose(1, 2).flatten(2)))
        if not self.pre_norm:
            h = self.norm_attention(h)
            return self.norm_mlp(h + self.dropout(self.mlp(h)))
        return h + self.dropout(self.mlp(self.norm_mlp(h)))


class TokenTransformer(Configurable):
    """A stack of :class:`TokenTransformerLayer` and, with ``pre_norm``, a last norm.

    Tokens have no order but the one their features tell, and padded tokens are seen by none: what
    they hold themselves is of no use. Arguments and shapes as in :class:`TokenTransformerLayer`.

    Args:
        channels: Size of each token, :math:`D`.
        num_layers: Layers.
        heads: Attention heads; must divide ``channels``.
        mlp_ratio: Width of the MLPs over ``channels``.
        dropout: Dropout on attention weights, in the MLPs and after both.
        hidden_channels: Width of the MLPs, in place of ``mlp_ratio``.
        pre_norm: As in the layer.
        activation: Of the MLPs.
    """

    def __init__(
        self,
        channels: int,
        num_layers: int,
        heads: int = 4,
        *,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        hidden_channels: int | None = None,
        pre_norm: bool = True,
        activation: Literal["gelu", "relu"] = "gelu",
    ):
        super().__init__()
        self.layers = nn.ModuleList(
            TokenTransformerLayer(
                channels,
                heads,
                mlp_ratio=mlp_ratio,
                dropout=dropout,
                hidden_channels=hidden_channels,
                pre_norm=pre_norm,
                activation=activation,
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels) if pre_norm else nn.Identity()

    def forward(self, h: Tensor, pad: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            h = layer(h, pad)
        return self.norm(h)
