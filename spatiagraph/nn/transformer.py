"""Graph transformer: cells attend to their spatial neighbours.

Shape letters: ``N`` cells, ``E`` edges, ``D`` channels, ``F`` edge features, ``B`` graphs.
"""

import torch
from torch import Tensor, nn

from spatiagraph.kernels.attention import neighbor_attention, neighbor_self_attention
from spatiagraph.kernels.residual import norm_linear, residual_linear, residual_mlp
from spatiagraph.nn.config import Configurable


class GraphTransformerLayer(Configurable):
    r"""One pre-norm block of attention over incoming edges and an MLP.

    .. math::
        \mathbf{h} \leftarrow \mathbf{h} + \boldsymbol\gamma_1 \odot
        \mathrm{Attn}(\mathrm{LN}(\mathbf{h})), \qquad
        \mathbf{h} \leftarrow \mathbf{h} + \boldsymbol\gamma_2 \odot
        \mathrm{MLP}(\mathrm{LN}(\mathbf{h})),

    where the logits of an edge get a learned linear function of its features, one per head.

    Args:
        channels: Size of each cell feature, :math:`D`.
        heads: Attention heads; must divide ``channels``.
        edge_dim: Edge features, :math:`F`; 0 for none.
        mlp_ratio: Width of the MLP over ``channels``.
        dropout: Dropout on attention edges and in the MLP.
        init_scale: Start of both :math:`\boldsymbol\gamma`; with 0 the layer starts as identity.

    Shapes:
        - **h**: ``[N, D]``
        - **edge_index**: ``[2, E]``, messages flow from row 0 to row 1
        - **edge_attr**: ``[E, F]``
        - **output**: ``[N, D]``
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        *,
        edge_dim: int = 0,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        init_scale: float = 1.0,
    ):
        super().__init__()
        if min(channels, heads) < 1 or channels % heads:
            raise ValueError(f"Expected 'heads' to divide {channels} channels, got {heads}")
        hidden = int(channels * mlp_ratio)
        self.channels = channels
        self.heads = heads
        self.dropout = dropout
        self.norm_attention = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.bias = nn.Linear(edge_dim, heads, bias=False) if edge_dim else None
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels),
        )
        self.scale_attention = nn.Parameter(torch.full((channels,), float(init_scale)))
        self.scale_mlp = nn.Parameter(torch.full((channels,), float(init_scale)))

    def forward(self, h: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        bias = None
        if self.bias is not None and edge_attr is not None:
            bias = self.bias(edge_attr)  # [E, heads]
        qkv = norm_linear(h, *_with_norm(self.norm_attention, self.qkv)).view(
            -1, 3, self.heads, self.channels // self.heads
        )  # one joint projection: neither its parts nor their gradients are copied
        message = neighbor_self_attention(qkv, edge_index, bias, dropout=dropout)
        h = residual_linear(h, message.flatten(1), *_scaled(self.out, self.scale_attention))
        first, _, _, last = self.mlp
        return residual_mlp(
            h,
            *_with_norm(self.norm_mlp, first),
            *_scaled(last, self.scale_mlp),
            dropout=dropout,
        )


def _with_norm(norm: nn.LayerNorm, linear: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear map of normed rows, with the norm's own weights in them."""
    assert isinstance(linear, nn.Linear)  # as built above
    weight = linear.weight * norm.weight
    return weight, torch.addmv(linear.bias, linear.weight, norm.bias)


def _scaled(linear: nn.Module, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear map times ``scale [D]``: they are small, and nodes are many."""
    assert isinstance(linear, nn.Linear)  # as built above
    return scale.unsqueeze(1) * linear.weight, scale * linear.bias


class GlobalTokens(Configurable):
    """Learned tokens that every cell of a graph writes to and reads from.

    Two attentions on complete bipartite graphs, cells → tokens and tokens → cells, cost
    ``N × num_tokens`` edges. Context becomes global: tiles no longer equal the whole slide.
    """

    def __init__(self, channels: int, num_tokens: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.tokens = nn.Parameter(torch.randn(num_tokens, channels) * 0.02)
        self.norm = nn.LayerNorm(channels)
        self.write = nn.Linear(channels, 2 * channels)
        self.read_query = nn.Linear(channels, channels)
        self.read = nn.Linear(channels, 2 * channels)
        self.scale = nn.Parameter(torch.zeros(channels))

    def forward(self, h: Tensor, batch: Tensor | None = None) -> Tensor:
        num_cells, channels = h.shape
        num_tokens, shape = self.tokens.size(0), (-1, self.heads, channels // self.heads)
        batch = h.new_zeros(num_cells, dtype=torch.long) if batch is None else batch
        num_graphs = int(batch.max()) + 1 if num_cells else 1
        cell = torch.arange(num_cells, device=h.device).repeat_interleave(num_tokens)
        token = batch.repeat_interleave(num_tokens) * num_tokens
        token = token + torch.arange(num_tokens, device=h.device).repeat(num_cells)
        normed = self.norm(h)
        query = self.tokens.repeat(num_graphs, 1)
        key, value = self.write(normed).chunk(2, -1)
        order = token.argsort(stable=True)
        state = query + neighbor_attention(
            query.view(shape),
            key.reshape(shape),
            value.reshape(shape),
            torch.stack([cell[order], token[order]]),
        ).flatten(1)
        key, value = self.read(state).chunk(2, -1)
        message = neighbor_attention(
            self.read_query(normed).view(shape),
            key.reshape(shape),
            value.reshape(shape),
            torch.stack([token, cell]),
        )
        return h + self.scale * message.flatten(1)


class GraphTransformer(Configurable):
    """A stack of :class:`GraphTransformerLayer`, with optional global tokens between them.

    Args:
        channels: Size of each cell feature, :math:`D`.
        num_layers: Layers, and hops a cell sees.
        heads: Attention heads.
        edge_dim: Edge features, :math:`F`.
        mlp_ratio: Width of the MLPs over ``channels``.
        dropout: Dropout on attention edges and in the MLPs.
        init_scale: Start of the residual scales; with 0 the stack starts as identity.
        num_global_tokens: Global tokens per graph; 0 keeps the context local.

    Shapes:
        - **h**: ``[N, D]``
        - **edge_index**: ``[2, E]``
        - **edge_attr**: ``[E, F]``
        - **batch**: graph of each cell, ``[N]``; only global tokens read it
        - **output**: ``[N, D]``
    """

    def __init__(
        self,
        channels: int,
        num_layers: int = 2,
        heads: int = 4,
        *,
        edge_dim: int = 0,
        mlp_ratio: float = 2.0,
        dropout: float = 0.0,
        init_scale: float = 1.0,
        num_global_tokens: int = 0,
    ):
        super().__init__()
        self.channels = channels
        self.num_layers = num_layers
        self.edge_dim = edge_dim
        self.layers = nn.ModuleList(
            GraphTransformerLayer(
                channels,
                heads,
                edge_dim=edge_dim,
                mlp_ratio=mlp_ratio,
                dropout=dropout,
                init_scale=init_scale,
            )
            for _ in range(num_layers)
        )
        self.globals = nn.ModuleList(
            GlobalTokens(channels, num_global_tokens, heads)
            for _ in range(num_layers if num_global_tokens else 0)
        )

    def forward(
        self,
        h: Tensor,
        edge_index: Tensor,
        edge_attr: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Tensor:
        for i, layer in enumerate(self.layers):
            h = layer(h, edge_index, edge_attr)
            if self.globals:
                h = self.globals[i](h, batch)
        return h
