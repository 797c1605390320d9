"""Pooling one level of tissue into the next: cells → niches → tissue regions."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex

from spatiagraph.graph.edges import plain_edges
from spatiagraph.kernels.attention import neighbor_attention
from spatiagraph.nn.config import Configurable


class Pooled(NamedTuple):
    """What a pooling returns.

    Attributes:
        h: Group features, ``[M, D]``.
        assignment: Group of each member, ``[N]``; -1 where a member has none.
        loss: Auxiliary loss of a learned pooling, or ``None``.
    """

    h: Tensor
    assignment: Tensor | None
    loss: Tensor | None = None


def membership(assignment: Tensor, num_groups: int) -> EdgeIndex:
    """Edges member → group of an assignment vector, sorted by group.

    Args:
        assignment: Group of each member, ``[N]``; -1 for none.
        num_groups: Number of groups, :math:`M`.
    """
    member = (assignment >= 0).nonzero().squeeze(1)
    order = assignment[member].argsort(stable=True)
    edges = torch.stack([member[order], assignment[member][order]])
    return EdgeIndex(edges, sparse_size=(assignment.numel(), num_groups), sort_order="col")


class AttentionPool(Configurable):
    r"""Attention pooling of members into their groups; a member may belong to several.

    .. math::
        \mathbf{z}_m = \mathbf{h}'_m + \boldsymbol\gamma \odot \mathrm{MLP}(\mathbf{h}'_m), \qquad
        \mathbf{h}'_m = \sum_{i \in m} \mathrm{softmax}_i\!\left(
        \mathbf{q}^\top \mathbf{W} \mathrm{LN}(\mathbf{h}_i) / \sqrt{d}\right) \mathbf{h}_i ,

    per head, by the same kernel as :class:`~spatiagraph.nn.transformer.GraphTransformer`, on the
    edges member → group. The query :math:`\mathbf{q}` and the scale :math:`\boldsymbol\gamma`
    start at zero: before training a group is the mean of its members.

    Args:
        channels: Size of each feature, :math:`D`.
        heads: Attention heads; each weighs its own part of the channels.
        hidden_channels: Width of the residual MLP; 0 for none.

    Shapes:
        - **h**: member features, ``[N, D]``
        - **index**: group of each member ``[N]`` (-1: none), or membership edges ``[2, P]``
        - **output**: :class:`Pooled` with ``[M, D]``; a group without members is zero
    """

    def __init__(self, channels: int, heads: int = 4, *, hidden_channels: int = 0):
        super().__init__()
        if channels % heads:
            raise ValueError(f"Expected 'heads' to divide {channels} channels, got {heads}")
        self.channels = channels
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.key = nn.Linear(channels, channels)
        self.query = nn.Parameter(torch.zeros(heads, channels // heads))
        self.mlp = (
            nn.Sequential(
                nn.LayerNorm(channels),
                nn.Linear(channels, hidden_channels),
                nn.GELU(),
                nn.Linear(hidden_channels, channels),
            )
            if hidden_channels
            else None
        )
        self.scale = nn.Parameter(torch.zeros(channels)) if hidden_channels else None

    def forward(
        self,
        h: Tensor,
        index: Tensor,
        num_groups: int | None = None,
        *,
        edge_index: Tensor | None = None,
    ) -> Pooled:
        assignment = index if index.dim() == 1 else None
        if assignment is not None and assignment.numel() != h.size(0):
            raise ValueError(
                f"Expected one group per member, got {assignment.numel()} for {h.size(0)}"
            )
        if num_groups is None:
            groups = index if assignment is not None else plain_edges(index)[1]
            num_groups = int(groups.max()) + 1 if groups.numel() else 0
        edges = index if assignment is None else membership(assignment, num_groups)
        shape = (-1, self.heads, self.channels // self.heads)
        query = self.query.expand(num_groups, -1, -1)
        key = self.key(self.norm(h)).view(shape)
        z = neighbor_attention(query, key, h.reshape(shape), edges).flatten(1)  # [M, D]
        if self.mlp is not None:
            z = z + self.scale * self.mlp(z)
        return Pooled(z, assignment)


NichePool = AttentionPool
"""Cells → niches, by :class:`AttentionPool`."""
TissuePool = AttentionPool
"""Niches → tissue regions, by :class:`AttentionPool`."""


class PyGPool(Configurable):
    """A pooling of PyG in the place of :class:`AttentionPool`: it chooses the groups itself.

    ``TopKPooling`` and ``SAGPooling`` keep some members, each a group of its own; the others
    belong to none. ``DMoNPooling`` assigns every member to one of ``k`` clusters through a dense
    adjacency, so it suits tiles of up to some thousand members.

    Args:
        name: Class name in ``torch_geometric.nn``.
        **kwargs: Arguments of that class.

    Raises:
        ValueError: If the pooling is not one of those named above.
    """

    SPARSE = ("TopKPooling", "SAGPooling")
    DENSE = ("DMoNPooling",)

    def __init__(self, name: str, **kwargs: object):
        super().__init__()
        import torch_geometric.nn as pyg_nn

        if name not in self.SPARSE + self.DENSE:
            raise ValueError(f"Expected one of {self.SPARSE + self.DENSE}, got {name!r}")
        self.name = name
        self.pool = getattr(pyg_nn, name)(**kwargs)

    def forward(
        self,
        h: Tensor,
        index: Tensor | None = None,
        num_groups: int | None = None,
        *,
        edge_index: Tensor | None = None,
    ) -> Pooled:
        if edge_index is None:
            raise ValueError(f"Expected 'edge_index': {self.name} pools along edges, got None")
        edges = plain_edges(edge_index)
        if self.name in self.SPARSE:
            pooled, _, _, _, kept, _ = self.pool(h, edges)
            assignment = h.new_full((h.size(0),), -1, dtype=torch.long)
            assignment[kept] = torch.arange(kept.numel(), device=h.device)
            return Pooled(pooled, assignment)
        dense = h.new_zeros(h.size(0), h.size(0))
        dense[edges[1], edges[0]] = 1.0
        share, pooled, _, *losses = self.pool(h, dense)
        return Pooled(pooled.squeeze(0), share.squeeze(0).argmax(-1), torch.stack(losses).sum())
