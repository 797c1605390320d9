"""Context encoder: cell → level → level … and back, composed from any convolutions and poolings.

Shape letters: ``N`` cells, ``E`` edges, ``M`` groups of a level, ``D`` channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch_geometric.utils import coalesce

from spatiagraph.graph.edges import plain_edges
from spatiagraph.graph.hierarchy import region_of
from spatiagraph.nn.cell_graph import CellGraph, Embeddings, Hidden, LevelEmbeddings, LevelGraph
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.level import Level, hide


class ContextEncoder(Configurable):
    r"""Cells exchange messages with their neighbours, are pooled level by level, and hear back.

    .. math::
        \mathbf{h} = \mathrm{Conv}(\mathbf{z}), \qquad
        \mathbf{h}^{(l)} = \mathrm{Level}_l(\mathbf{h}^{(l-1)}), \qquad
        \mathbf{z}' = \mathbf{z} + \boldsymbol\gamma (\mathbf{h} - \mathbf{z})
        + \sum_l \boldsymbol\gamma_l \mathbf{W}_l \mathbf{h}^{(l)}

    with gates :math:`\boldsymbol\gamma` that start at zero: context never replaces the cell
    unasked.

    Args:
        channels: Size of every embedding, :math:`D`.
        conv: Module ``(h, edge_index, edge_attr) → h`` over cells; ``None`` for no cell-cell
            messages. Any PyG convolution with these arguments will do.
        levels: A :class:`~spatiagraph.nn.Level` for each level of the recipe, from cells upwards;
            none for cells alone.
        edge_encoding: Module ``(pos, edge_index) → [E, F]`` whose output ``conv`` gets as
            ``edge_attr``; ``None`` to call ``conv(h, edge_index)``.
        position: Module ``(pos, center, group) → [N, D]``, such as
            :class:`~spatiagraph.nn.PositionEncoding`, added to cells before ``conv``: positions in
            their group. For graphs whose edges stay inside groups; tiles are not exact
            otherwise.
        change: Module ``(z) → [N, D]``, such as :class:`~spatiagraph.nn.GatedMLP`, added to cells
            after groups were pooled: what only they learn.
        pool_context: Pool what cells heard from their neighbours; ``False`` pools them as they came
            in, so that groups stay where cells start.
        maskable: Have the learned vector that stands for hidden cells.
        num_hops: Hops over ``edge_index`` that ``conv`` looks; its ``num_layers`` when not given.

    Shapes:
        - **z**: cells before context, ``[N, D]``
        - **graph**: :class:`~spatiagraph.nn.CellGraph`
        - **hidden**: :class:`~spatiagraph.nn.Hidden`, or ``None``
        - **tokens**: image tokens of each level, ``[M, S, I]`` or ``None``
        - **output**: :class:`~spatiagraph.nn.Embeddings`

    Raises:
        ValueError: If the graph has another number of levels, or groups that a pooling makes are to
            be hidden.
    """

    def __init__(
        self,
        channels: int,
        *,
        conv: nn.Module | None = None,
        levels: Sequence[Level] | None = None,
        edge_encoding: nn.Module | None = None,
        position: nn.Module | None = None,
        change: nn.Module | None = None,
        pool_context: bool = True,
        maskable: bool = False,
        num_hops: int | None = None,
    ):
        super().__init__()
        self.channels = channels
        self.conv = conv
        self.edge_encoding = edge_encoding
        self.position = position
        self.change = change
        self.pool_context = pool_context
        self.hidden_cell = nn.Parameter(torch.randn(channels) * 0.02) if maskable else None
        self.levels = nn.ModuleList(
            [Level(channels), Level(channels)] if levels is None else levels
        )
        default_hops = 0 if conv is None else int(getattr(conv, "num_layers", 1))
        self.num_hops = default_hops if num_hops is None else num_hops
        self.gate = nn.Parameter(torch.zeros(channels)) if conv is not None else None

    def forward(
        self,
        z: Tensor,
        graph: CellGraph,
        hidden: Hidden | None = None,
        *,
        tokens: Sequence[Tensor | None] = (),
    ) -> Embeddings:
        if len(graph.levels) != len(self.levels):
            raise ValueError(
                f"Expected a graph of {len(self.levels)} levels, as the encoder has, got "
                f"{len(graph.levels)}: give the recipe and the encoder as many"
            )
        hidden = Hidden() if hidden is None else hidden
        seen = hide(z, hidden.cells, self.hidden_cell)
        if self.position is not None:
            seen = seen + self.position(graph.pos, graph.levels[0].pos, graph.levels[0].own)
        h = self._converse(seen, graph)
        found, losses = self._climb(h if self.pool_context else seen, graph, hidden, tokens)
        cell = z if self.gate is None else z + self.gate * (h - z)
        if self.change is not None:
            cell = cell + self.change(z)
        own = None
        for level, groups in zip(self._levels, found, strict=True):
            own = groups.own if own is None else region_of(own, groups.own)
            if level.top_down is not None:
                cell = level.top_down(cell, groups.h, own)
        loss = torch.stack(losses).sum() if losses else None
        return Embeddings(cell, tuple(found), loss, h)

    @property
    def _levels(self) -> list[Level]:
        """Levels by their type, which a list of modules forgets."""
        return cast("list[Level]", list(self.levels))

    def _climb(
        self, h: Tensor, graph: CellGraph, hidden: Hidden, tokens: Sequence[Tensor | None]
    ) -> tuple[list[LevelEmbeddings], list[Tensor]]:
        """Embeddings of each level, and the losses of learned poolings."""
        given = list(graph.levels)
        members, pos, slide, edges = h, graph.pos, graph.batch, graph.edge_index
        found: list[LevelEmbeddings] = []
        losses = []
        for i, level in enumerate(self._levels):
            groups = given[i]
            masked = hidden.levels[i] if i < len(hidden.levels) else None
            index = groups.own if groups.members is None else groups.members
            num = len(groups.pos)
            pooled = level.pool(members, index, num, edge_index=edges, batch=slide)
            if level.pool.assigns:
                if masked is not None:
                    raise ValueError("Expected no hidden groups where a pooling makes the groups")
                assert pooled.assignment is not None  # a pooling that assigns says both
                assert pooled.batch is not None
                groups = made_by_pooling(pos, pooled.assignment, len(pooled.h))
                slide = pooled.batch
                if i + 1 < len(given):  # what lies above was planned for other groups
                    given[i + 1] = one_group_per_slide(groups.pos, pooled.batch)
            else:
                slide = slide_of_groups(index, slide, num)
            alone = level.see_image(pooled.h, tokens[i] if i < len(tokens) else None)
            above = given[i + 1] if i + 1 < len(given) else None
            members = level.see_each_other(
                hide(alone, masked, level.hidden),
                groups.pos,
                above,
                tokens[i + 1] if i + 1 < len(tokens) else None,
            )
            found.append(LevelEmbeddings(members, groups.own, alone, groups.members))
            pos = groups.pos
            if any(later.pool.assigns for later in self._levels[i + 1 :]):
                edges = _edges_between_groups(edges, groups.own)
            losses += [] if pooled.loss is None else [pooled.loss]
        return found, losses

    def _converse(self, h: Tensor, graph: CellGraph) -> Tensor:
        """Cells after messages from their neighbours."""
        if self.conv is None:
            return h
        if self.edge_encoding is None:
            return self.conv(h, graph.edge_index)
        return self.conv(h, graph.edge_index, self.edge_encoding(graph.pos, graph.edge_index))

    @classmethod
    def upgrade_config(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arguments in which version 0.1.0 described two levels, as those of today."""
        if not {"niche_pool", "tissue_pool"} & set(config):
            return config
        channels, maskable = config["channels"], config.get("maskable", False)
        name = f"{Level.__module__}.{Level.__qualname__}"
        levels = []
        for key, level in (("niche", "niche"), ("tissue", "tissue")):
            args = {
                "channels": channels,
                "pool": config.get(f"{key}_pool"),
                "conv": config.get(f"{key}_conv"),
                "position": config.get(f"{key}_place"),
                "look": config.get(f"{key}_fusion"),
                "top_down": config.get(f"use_{level}", True),
                "maskable": maskable and level == "niche",
            }
            levels.append({"class": name, "args": args})
        kept = ("channels", "conv", "edge_encoding", "maskable", "num_hops")
        new = {key: config[key] for key in kept if key in config}
        return {**new, "position": config.get("place"), "levels": levels}


def made_by_pooling(pos: Tensor, assignment: Tensor, num_groups: int) -> LevelGraph:
    """Groups that a pooling made, where their members lie.

    Args:
        pos: Members in µm, ``[n, 2]``.
        assignment: Group of each member, ``[n]``; -1 for none.
        num_groups: Number of groups, :math:`M`.
    """
    return LevelGraph(assignment, None, _centres(pos, assignment, num_groups))


def one_group_per_slide(pos: Tensor, slide: Tensor) -> LevelGraph:
    """All groups of a slide as one group above.

    Args:
        pos: Groups in µm, ``[M, 2]``.
        slide: Slide of each, ``[M]``.
    """
    num = int(slide.max()) + 1 if slide.numel() else 0
    return LevelGraph(slide, None, _centres(pos, slide, num))


def slide_of_groups(index: Tensor, batch: Tensor | None, num_groups: int) -> Tensor | None:
    """Slide of each group, ``[M]``, by its members; -1 for a group without any.

    Args:
        index: Group of each member ``[n]``, or members → groups ``[2, P]``.
        batch: Slide of each member, ``[n]``; ``None`` for one slide.
        num_groups: Number of groups, :math:`M`.
    """
    if batch is None:
        return None
    if index.dim() == 2:
        member, group = plain_edges(index)
    else:
        member = (index >= 0).nonzero().squeeze(1)
        group = index[member]
    return batch.new_full((num_groups,), -1).scatter(0, group, batch[member])


def _centres(pos: Tensor, own: Tensor, num_groups: int) -> Tensor:
    """Mean position of the members of each group, ``[M, 2]``; 0 for a group without any."""
    member = (own >= 0).nonzero().squeeze(1)
    total = pos.new_zeros(num_groups, 2).index_add(0, own[member], pos[member])
    size = torch.bincount(own[member], minlength=num_groups).clamp(min=1)
    return total / size.unsqueeze(1)


def _edges_between_groups(edge_index: Tensor, own: Tensor) -> Tensor:
    """Groups are connected where members of theirs are."""
    edges = own[plain_edges(edge_index)]
    return coalesce(edges[:, (edges >= 0).all(0) & (edges[0] != edges[1])])
