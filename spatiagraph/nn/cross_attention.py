"""Cross-attention block: tokens of one modality attend to those of another."""

from torch import Tensor, nn

from spatiagraph.nn.config import Configurable


class CrossAttention(Configurable):
    r"""Pre-norm cross-attention and an MLP; returns the change, so that the caller can weigh it.

    .. math::
        \mathbf{h} = \mathbf{q} + \mathrm{Attn}(\mathrm{LN}(\mathbf{q}), \mathbf{c}, \mathbf{c}),
        \qquad \mathbf{h} \leftarrow \mathbf{h} + \mathrm{MLP}(\mathrm{LN}(\mathbf{h})),

    and the output is :math:`\mathbf{h} - \mathbf{q}`. Keys and values are not normalised, as in
    `SPATIA <https://arxiv.org/abs/2507.04704>`_.

    Args:
        channels: Size of queries, :math:`D`.
        context_channels: Size of the context, :math:`I`, which a linear map takes to
            :math:`D` first; ``None`` for context of size :math:`D`, taken as it is.
        heads: Attention heads; must divide ``channels``.
        mlp_ratio: Width of the MLP over ``channels``.
        dropout: Dropout on attention weights, in the MLP and after both.

    Shapes:
        - **query**: ``[N, Q, D]``
        - **context**: ``[N, T, I]``
        - **pad**: True where the context holds nothing, ``[N, T]``; never a whole row
        - **output**: ``[N, Q, D]``

    Raises:
        ValueError: If ``heads`` does not divide ``channels``.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        *,
        context_channels: int | None = None,
        mlp_ratio: float = 0.5,
        dropout: float = 0.0,
    ):
        super().__init__()
        if channels % heads:
            raise ValueError(f"Expected 'heads' to divide {channels} channels, got {heads}")
        hidden = int(channels * mlp_ratio)
        self.linear = None if context_channels is None else nn.Linear(context_channels, channels)
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

    def forward(self, query: Tensor, context: Tensor, pad: Tensor | None = None) -> Tensor:
        if self.linear is not None:
            context = self.linear(context)
        change, _ = self.attention(
            self.norm_query(query), context, context, key_padding_mask=pad, need_weights=False
        )
        change = self.dropout(change)
        return change + self.dropout(self.mlp(self.norm_mlp(query + change)))
