"""Pooling one level of tissue into the next: cells → niches → tissue regions."""

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex
from torch_geometric.utils import subgraph

from spatiagraph.graph.edges import plain_edges
from spatiagraph.kernels.attention import neighbor_attention
from spatiagraph.kernels.segment import segment_mean
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.protocols import Pooled
from spatiagraph.nn.pyg_pooling import ADAPTERS, PoolOptions, ScoredPool


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


def _memberships(
    h: Tensor, index: Tensor, num_groups: int | None
) -> tuple[EdgeIndex, Tensor | None]:
    """Edges member → group, sorted by group, and the group of each member where it has one.

    Args:
        h: Members, ``[N, D]``.
        index: Group of each, ``[N]``, or edges ``[2, P]``.
        num_groups: Number of groups; that of the last one when ``None``.

    Raises:
        ValueError: If a member has no entry.
    """
    assignment = index if index.dim() == 1 else None
    if assignment is not None and assignment.numel() != h.size(0):
        raise ValueError(f"Expected one group per member, got {assignment.numel()} for {h.size(0)}")
    if num_groups is None:
        groups = index if assignment is not None else plain_edges(index)[1]
        num_groups = int(groups.max()) + 1 if groups.numel() else 0
    if assignment is not None:
        return membership(assignment, num_groups), assignment
    size = (h.size(0), num_groups)
    if isinstance(index, EdgeIndex) and index.is_sorted_by_col and index.sparse_size() == size:
        return index, None
    edges = plain_edges(index)
    order = edges[1].argsort(stable=True)
    return EdgeIndex(edges[:, order], sparse_size=size, sort_order="col"), None


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

    assigns = False

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
        batch: Tensor | None = None,
    ) -> Pooled:
        edges, assignment = _memberships(h, index, num_groups)
        shape = (-1, self.heads, self.channels // self.heads)
        query = self.query.expand(edges.sparse_size(1), -1, -1)
        key = self.key(self.norm(h)).view(shape)
        z = neighbor_attention(query, key, h.reshape(shape), edges).flatten(1)  # [M, D]
        if self.mlp is not None:
            z = z + self.scale * self.mlp(z)
        return Pooled(z, assignment)


class MeanPool(Configurable):
    r"""Mean of the members of each group, :math:`\mathbf{z}_m = \tfrac{1}{|m|} \sum_{i \in m} \mathbf{h}_i`.

    It has nothing to learn: groups stay where their members are.

    Shapes:
        As :class:`AttentionPool`.
    """  # noqa: E501

    assigns = False

    def forward(
        self,
        h: Tensor,
        index: Tensor,
        num_groups: int | None = None,
        *,
        edge_index: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Pooled:
        edges, assignment = _memberships(h, index, num_groups)
        (ptr, member), _ = edges.get_csc()
        return Pooled(segment_mean(h[member], ptr), assignment)


NichePool = AttentionPool
"""Cells → niches, by :class:`AttentionPool`."""
TissuePool = AttentionPool
"""Niches → tissue regions, by :class:`AttentionPool`."""


class PyGPool(Configurable):
    """A pooling of PyG in place of :class:`AttentionPool`: it makes groups of its own.

    ``TopKPooling`` and ``SAGPooling`` keep some members, each a group of its own; the rest
    belongs to none. ``ASAPooling`` keeps some members with their neighbours. ``EdgePooling`` and
    ``ClusterPooling`` contract edges. ``DMoNPooling``, ``dense_mincut_pool`` and
    ``dense_diff_pool`` assign every member to one of ``k`` clusters through a dense adjacency of
    its slide, and ``MemPooling`` to one of its keys, so they suit tiles of up to some thousand
    members. Groups never span slides.

    Args:
        name: Name in ``torch_geometric.nn``.
        **kwargs: Arguments of that class; of a function, ``channels`` and ``k`` as for
            ``DMoNPooling``, and its options.

    Shapes:
        - **h**: member features, ``[N, D]``
        - **edge_index**: edges between members, ``[2, E]``
        - **batch**: slide of each member, ``[N]``, one slide when ``None``; a member with -1 gets
          no group
        - **output**: :class:`Pooled` with ``[M, D]``, the group of each member and the slide of
          each group; ``index`` and ``num_groups`` are not read

    Raises:
        ValueError: If the pooling is not one of those named above.
    """

    assigns = True
    keywords = PoolOptions

    def __init__(self, name: str, **kwargs: Any):
        super().__init__()
        import torch_geometric.nn as pyg_nn

        if name not in ADAPTERS:
            raise ValueError(f"Expected one of {', '.join(ADAPTERS)}, got {name!r}")
        self.name = name
        build = getattr(pyg_nn, name)
        self.pool = build(**kwargs) if isinstance(build, type) else ScoredPool(build, **kwargs)

    def forward(
        self,
        h: Tensor,
        index: Tensor | None = None,
        num_groups: int | None = None,
        *,
        edge_index: Tensor | None = None,
        batch: Tensor | None = None,
    ) -> Pooled:
        if edge_index is None:
            if self.name != "MemPooling":
                raise ValueError(f"Expected 'edge_index': {self.name} pools along edges, got None")
            edge_index = torch.empty((2, 0), dtype=torch.long, device=h.device)
        num = h.size(0)
        batch = torch.zeros(num, dtype=torch.long, device=h.device) if batch is None else batch
        if batch.numel() != num:
            raise ValueError(f"Expected one slide per member, got {batch.numel()} for {num}")
        member = (batch >= 0).nonzero().squeeze(1)
        if not member.numel():
            return Pooled(h[:0], torch.full_like(batch, -1), batch=batch[:0])
        edges = plain_edges(edge_index)
        edges = edges[:, batch[edges[0]] == batch[edges[1]]]
        edges, _ = subgraph(member, edges, relabel_nodes=True, num_nodes=num)
        pooled = ADAPTERS[self.name](self.pool, h[member], edges, batch[member])
        assert pooled.assignment is not None
        assignment = torch.full_like(batch, -1).scatter(0, member, pooled.assignment)
        return pooled._replace(assignment=assignment)
