r"""SE(2) transformer: cells of a sub-slice in context, positions only as distances.

Shape letters: ``N`` nodes of all sub-slices of a batch, ``B`` sub-slices, ``L`` nodes of the
longest, ``E`` pairs of known distance, ``H`` heads, ``D`` channels.
"""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch_geometric.utils import to_dense_batch

from spatiagraph.graph.pairs import NodeKind
from spatiagraph.kernels.backends import backend_for
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.pair_bias import GaussianPairBias
from spatiagraph.nn.pair_states import MatrixOfPairs, PairStates, TableOfPairs

NEAREST = 1e-4
"""Distance of distinct nodes at one position."""


class Nodes(NamedTuple):
    """Nodes of some sub-slices, one sub-slice after the other.

    Attributes:
        x: Vectors, ``[N, C]``.
        pos: Positions, ``[N, 2]``.
        kind: :class:`~spatiagraph.graph.pairs.NodeKind`, ``[N]``.
        batch: Sub-slice of each node, ``[N]``, ascending.
        pair_index: Pairs of known distance, each once, ``[2, E]``.
    """

    x: Tensor
    pos: Tensor
    kind: Tensor
    batch: Tensor
    pair_index: Tensor


class NodeStates(NamedTuple):
    """Nodes in context.

    Attributes:
        h: Nodes, ``[N, D]``.
        pair: All pairs of nodes, ``[B, L, L, H]``, if asked for; 0 where the second is padding.
        at: The same of some pairs, ``[M, H]``, if asked for.
    """

    h: Tensor
    pair: Tensor | None = None
    at: Tensor | None = None


class PairAttentionLayer(Configurable):
    """A block of attention with a bias for each pair, and an MLP.

    Args:
        channels: Size of each node, :math:`D`.
        heads: Attention heads; must divide ``channels``.
        hidden_channels: Width of the MLP.
        dropout: Dropout on attention weights, in the MLP and after both.
        pre_norm: Normalise the input of both parts, in place of the sum with their output.

    Raises:
        ValueError: If ``heads`` does not divide ``channels``.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 8,
        *,
        hidden_channels: int = 1024,
        dropout: float = 0.1,
        pre_norm: bool = False,
    ):
        super().__init__()
        if channels % heads:
            raise ValueError(f"Expected 'heads' to divide {channels} channels, got {heads}")
        self.heads = heads
        self.pre_norm = pre_norm
        self.q, self.k, self.v, self.out = (nn.Linear(channels, channels) for _ in range(4))
        self.norm_attention, self.norm_mlp = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden_channels),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_channels, channels),
        )
        self.dropout = nn.Dropout(dropout)

    def project(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of each head, ``[B, H, L, D / H]`` each."""
        h = self.norm_attention(h) if self.pre_norm else h
        q, k, v = (f(h).unflatten(2, (self.heads, -1)).transpose(1, 2) for f in self._maps())
        return q, k, v

    def forward(self, h: Tensor, message: Tensor) -> Tensor:
        """Nodes ``[B, L, D]`` after the messages ``[B, H, L, D / H]`` that attention gave them."""
        change = self.dropout(self.out(message.transpose(1, 2).flatten(2)))
        if self.pre_norm:
            h = h + change
            return h + self.dropout(self.mlp(self.norm_mlp(h)))
        h = self.norm_attention(h + change)
        return self.norm_mlp(h + self.dropout(self.mlp(h)))

    def _maps(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        return self.q, self.k, self.v


class SE2Transformer(Configurable):
    r"""Transformer on the nodes of sub-slices, with states of pairs that start from distances.

    Layer :math:`t` attends with :math:`\mathbf{P}^t + \mathbf{Q}_t \mathbf{K}_t^\top / \sqrt{d}`,
    which is also the next state of the pairs, as in SToFM
    (`arXiv:2507.11588 <https://arxiv.org/abs/2507.11588>`_). So that state is never kept: it is

    .. math::
        \mathbf{P}^T = \mathbf{P}^0 + [\mathbf{Q}_0 \ldots \mathbf{Q}_{T-1}]
        [\mathbf{K}_0 \ldots \mathbf{K}_{T-1}]^\top / \sqrt{d},

    one product of queries and keys so far, taken some rows at a time and, in training, again in
    the backward pass. Memory grows with :math:`H L^2` once, whatever the number of layers and
    kernels; on CUDA a fused kernel reads :math:`\mathbf{P}^0` from the values of known pairs, and
    it grows with :math:`L^2` (float64 aside). Positions enter through distances of known pairs:
    outputs do not change when a sub-slice is rotated, moved or mirrored.

    Args:
        in_channels: Size of the vectors of nodes.
        channels: Size of each node, :math:`D`.
        num_layers: Layers.
        heads: Attention heads, :math:`H`; must divide ``channels``.
        num_kernels: Gaussian kernels of distances.
        hidden_channels: Width of the MLPs.
        dropout: Dropout of vectors, attention weights and MLPs.
        pre_norm: Normalise before each part and once at the end, in place of after each part.
        no_bias: Attend without the state of pairs: positions play no part.
        far: See :class:`GaussianPairBias`.

    Shapes:
        - **nodes**: :class:`Nodes`
        - **output**: :class:`NodeStates`

    Raises:
        ValueError: If ``heads`` does not divide ``channels``.
    """

    rows = 512
    """Rows of attention at once: memory, not the result."""

    def __init__(
        self,
        in_channels: int = 256,
        channels: int = 256,
        num_layers: int = 4,
        heads: int = 8,
        *,
        num_kernels: int = 128,
        hidden_channels: int = 1024,
        dropout: float = 0.1,
        pre_norm: bool = False,
        no_bias: bool = False,
        far: float | None = None,
    ):
        super().__init__()
        self.channels, self.heads, self.no_bias = channels, heads, no_bias
        self.embed = nn.Linear(in_channels, channels)
        self.kind = nn.Embedding(len(NodeKind), channels)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            PairAttentionLayer(
                channels, heads, hidden_channels=hidden_channels, dropout=dropout, pre_norm=pre_norm
            )
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(channels) if pre_norm else nn.Identity()
        self.bias = GaussianPairBias(heads, num_kernels, far=far)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self, nodes: Nodes, *, at: Tensor | None = None, return_pair: bool = False
    ) -> NodeStates:
        """States of nodes, and of pairs on request.

        Args:
            nodes: The nodes.
            at: Pairs of nodes of one sub-slice whose states to return, ``[2, M]``.
            return_pair: Return the states of all pairs, which takes memory of its own.
        """
        h, q, k, pairs, real = self._run(nodes)
        pair = some = None
        if return_pair:
            whole = pairs.dense() + (q @ k.transpose(2, 3)) * self._scale
            pair = (whole * real[:, None, None]).permute(0, 2, 3, 1)
        if at is not None:
            graph, (i, j) = nodes.batch[at[0]], _place(nodes.batch)[at]
            # indices apart from each other put the pairs first: [M, H, ...]
            some = (q[graph, :, i] * k[graph, :, j]).sum(2) * self._scale
            some = some + pairs.at(graph, i, j)
        return NodeStates(h[real], pair, some)

    def attention(self, nodes: Nodes, at: Tensor) -> Tensor:
        """Attention of target nodes to source nodes in the last layer, mean over heads, ``[M]``.

        Args:
            nodes: The nodes.
            at: Pairs (who attends, to whom) of one sub-slice, ``[2, M]``.
        """
        _, q, k, pairs, real = self._run(nodes)
        hidden = torch.zeros_like(real, dtype=q.dtype).masked_fill(~real, -torch.inf)
        graph, (i, j) = nodes.batch[at[0]], _place(nodes.batch)[at]
        start = pairs.dense()
        found = q.new_zeros(at.size(1))
        for first in range(0, q.size(2), self.rows):
            rows = slice(first, first + self.rows)
            logits = q[:, :, rows] @ k.transpose(2, 3) * self._scale + hidden[:, None, None]
            logits = logits if self.no_bias else logits + start[:, :, rows]
            weight = logits.softmax(3).mean(1)  # [B, R, L]
            mine = (i >= first) & (i < first + self.rows)
            found[mine] = weight[graph[mine], i[mine] - first, j[mine]]
        return found

    def _run(self, nodes: Nodes) -> tuple[Tensor, Tensor, Tensor, PairStates, Tensor]:
        """Nodes, queries and keys of the last state of pairs, its start, and real nodes."""
        h, real = to_dense_batch(self.embed(nodes.x) + self.kind(nodes.kind), nodes.batch)
        h = self.dropout(h)
        pairs = self._pairs(nodes, real)
        queries: list[Tensor] = []
        keys: list[Tensor] = []
        q = k = h.new_zeros(len(h), self.heads, h.size(1), 1)  # of no layers
        for layer in cast(list[PairAttentionLayer], self.layers):
            q, k, v = layer.project(h)
            queries.append(q)
            keys.append(k)
            if not self.no_bias:
                q, k = torch.cat(queries, 3), torch.cat(keys, 3)
            dropout = layer.dropout.p if self.training else 0.0
            h = layer(h, pairs.attend(q, k, v, dropout))
        return self.norm(h), q, k, pairs, real

    @property
    def _scale(self) -> float:
        return 1 / math.sqrt(self.channels // self.heads)

    def _pairs(self, nodes: Nodes, real: Tensor) -> PairStates:
        """States of pairs before any layer, in the form that the device is fast with."""
        weight = self.embed.weight
        if self.no_bias or weight.dtype == torch.float64 or backend_for(weight) != "triton":
            return MatrixOfPairs(self.pair_input(nodes, real), real, self._scale, self.rows)
        graph, i, j, value = self._known(nodes)
        return TableOfPairs(
            value, self.bias.far(), self._some(nodes, real), (graph, i, j), real, self._scale
        )

    def pair_input(self, nodes: Nodes, real: Tensor) -> Tensor:
        """States of pairs before any layer, ``[B, H, L, L]``: 0 of a node with itself and of CLS.

        Args:
            nodes: The nodes.
            real: Nodes that are no padding, ``[B, L]``.
        """
        if self.no_bias:
            return nodes.x.new_zeros(1, 1, 1, 1)
        graph, i, j, value = self._known(nodes)
        start = self.bias.far().view(1, -1, 1, 1) * self._some(nodes, real).unsqueeze(1)
        graph, i, j = torch.cat([graph, graph]), torch.cat([i, j]), torch.cat([j, i])
        head = torch.arange(self.heads, device=i.device)
        index = (graph.unsqueeze(1), head, i.unsqueeze(1), j.unsqueeze(1))
        return start.index_put_(index, torch.cat([value, value]).to(start.dtype))

    def _known(self, nodes: Nodes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sub-slice and places of each known pair, ``[E]``, and its state, ``[E, H]``."""
        source, target = nodes.pair_index
        away = (nodes.pos[source] - nodes.pos[target]).norm(dim=1).clamp(min=NEAREST)
        place = _place(nodes.batch)
        value = self.bias(away.to(nodes.x.dtype))
        return nodes.batch[source], place[source], place[target], value

    @staticmethod
    def _some(nodes: Nodes, real: Tensor) -> Tensor:
        """Pairs that have a state before any layer, ``[B, L, L]``."""
        kind, _ = to_dense_batch(nodes.kind, nodes.batch, fill_value=NodeKind.PADDING)
        lies = real & (kind != NodeKind.CLS)
        diagonal = torch.eye(real.size(1), dtype=torch.bool, device=real.device)
        return lies.unsqueeze(1) & lies.unsqueeze(2) & ~diagonal


def _place(batch: Tensor) -> Tensor:
    """Place of each node in its sub-slice, ``[N]``."""
    size = torch.bincount(batch)
    return torch.arange(len(batch), device=batch.device) - (size.cumsum(0) - size)[batch]
