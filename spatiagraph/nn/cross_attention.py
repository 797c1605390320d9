"""Cross-attention block: tokens of one modality attend to those of another."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from spatiagraph.nn.config import Configurable


class CrossAttention(Configurable):
    r"""Pre-norm cross-attention and an MLP; returns the change, so that the caller can weigh it.

    .. math::
        \mathbf{h} = \mathbf{q} + \mathrm{Attn}(\mathrm{LN}(\mathbf{q}), \mathbf{m}, \mathbf{m}),
        \qquad \mathbf{h} \leftarrow \mathbf{h} + \mathrm{MLP}(\mathrm{LN}(\mathbf{h})),

    and the output is :math:`\mathbf{h} - \mathbf{q}`. Keys and values are not normalised, as in
    `SPATIA <https://arxiv.org/abs/2507.04704>`_.

    Args:
        channels: Size of queries, :math:`D`.
        memory_channels: Size of the memory, :math:`I`, which a linear map takes to
            :math:`D` first; ``None`` for memory of size :math:`D`, taken as it is.
        heads: Attention heads; must divide ``channels``.
        mlp_ratio: Width of the MLP over ``channels``.
        dropout: Dropout on attention weights, in the MLP and after both.

    Shapes:
        - **query**: ``[N, Q, D]``
        - **memory**: keys and values, ``[N, T, I]``
        - **pad**: True where the memory holds nothing, ``[N, T]``; never a whole row
        - **output**: ``[N, Q, D]``

    Raises:
        ValueError: If ``heads`` does not divide ``channels``.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        *,
        memory_channels: int | None = None,
        mlp_ratio: float = 0.5,
        dropout: float = 0.0,
    ):
        super().__init__()
        if channels % heads:
            raise ValueError(f"Expected 'heads' to divide {channels} channels, got {heads}")
        hidden = int(channels * mlp_ratio)
        self.linear = None if memory_channels is None else nn.Linear(memory_channels, channels)
        self.norm_query = nn.LayerNorm(channels)
        self.norm_mlp = nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, dropout=dropout, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels),
        )
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def upgrade_config(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arguments of version 0.1.0, which called the memory a context, as those of today."""
        return {k.replace("context_channels", "memory_channels"): v for k, v in config.items()}

    def forward(self, query: Tensor, memory: Tensor, pad: Tensor | None = None) -> Tensor:
        if self.linear is not None:
            memory = self.linear(memory)
        change, _ = self.attention(
            self.norm_query(query), memory, memory, key_padding_mask=pad, need_weights=False
        )
        change = self.dropout(change)
        return change + self.dropout(self.mlp(self.norm_mlp(query + change)))
