"""One level of groups above the cells: pooling, convolution among groups, and top-down update."""

import torch
from torch import Tensor, nn
from torch_geometric import EdgeIndex

from spatiagraph.graph.build import group_graph
from spatiagraph.graph.edges import plain_edges
from spatiagraph.nn.cell_graph import LevelGraph
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.pool import AttentionPool
from spatiagraph.nn.protocols import Pooling
from spatiagraph.nn.top_down import TopDown

MAX_NEIGHBORS = 256
"""Groups of the same group above that a group sees at most."""


class Level(Configurable):
    r"""Groups of cells, or of the groups below: niches, regions, sections.

    .. math::
        \mathbf{p} = \mathrm{Pool}(\mathbf{h}_\mathrm{below}) + \mathrm{Look}(\mathrm{image}),
        \qquad \mathbf{h} = \mathrm{Conv}(\mathbf{p} + \mathrm{position}), \qquad
        \mathbf{z} \leftarrow \mathbf{z} + \boldsymbol\gamma \mathbf{W} \mathbf{h}

    Args:
        channels: Size of every embedding, :math:`D`.
        pool: Pooling of the members, such as :class:`~spatiagraph.nn.AttentionPool` (the default)
            or :class:`~spatiagraph.nn.PyGPool`.
        conv: Module ``(h, edge_index) → h`` among the groups of one group above, ``None`` for
            groups that do not see each other.
        position: Module ``(pos, center, group) → [M, D]``, such as
            :class:`~spatiagraph.nn.PositionEncoding`, added before ``conv``.
        look: Module ``(group [M, 1, D], image tokens [M, S, I]) → change``, such as
            :class:`~spatiagraph.nn.CrossAttention`, through which groups look at their image.
        top_down: Hand groups down to their cells, through a gate that starts closed.
        maskable: Have the learned vector that stands for hidden groups.
        region_token: Put a learned token into each group above, that all of its groups see in
            ``conv`` and that sees all of them, as published for SPATIA's regions.
        region_channels: Size of the image tokens of the group above, whose mean becomes a token
            beside it; 0 for none.

    Raises:
        TypeError: If the pooling does not say whether it ``assigns``.
        ValueError: If groups that the pooling makes itself are to look at an image, or tokens of
            the groups above are to be seen without ``conv``.
    """

    def __init__(
        self,
        channels: int,
        *,
        pool: Pooling | None = None,
        conv: nn.Module | None = None,
        position: nn.Module | None = None,
        look: nn.Module | None = None,
        top_down: bool = True,
        maskable: bool = False,
        region_token: bool = False,
        region_channels: int = 0,
    ):
        super().__init__()
        pool = AttentionPool(channels) if pool is None else pool
        if not isinstance(pool, Pooling):
            raise TypeError(
                f"Expected a pooling with an attribute 'assigns', got {type(pool).__name__}: set "
                "it to True if the pooling makes its own groups, else to False"
            )
        if pool.assigns and look is not None:
            raise ValueError(
                f"Expected given groups for a look at their image, but {type(pool).__name__} makes "
                "its own: leave out one of the two"
            )
        if pool.assigns and region_channels:
            raise ValueError(
                f"Expected given groups for 'region_channels', but {type(pool).__name__} makes its "
                "own, which have no image"
            )
        if (region_token or region_channels) and conv is None:
            raise ValueError("Expected 'conv', through which groups see tokens of those above")
        self.channels = channels
        self.pool = pool
        self.conv = conv
        self.position = position
        self.look = look
        self.top_down = TopDown(channels) if top_down else None
        self.hidden = nn.Parameter(torch.randn(channels) * 0.02) if maskable else None
        self.region = nn.Parameter(torch.randn(channels) * 0.02) if region_token else None
        self.region_image = nn.Linear(region_channels, channels) if region_channels else None

    def see_image(self, h: Tensor, tokens: Tensor | None) -> Tensor:
        """Groups ``[M, D]`` after a look at their image tokens ``[M, S, I]``, if there are any."""
        if self.look is None or tokens is None:
            return h
        return h + self.look(h.unsqueeze(1), tokens).squeeze(1)

    def see_each_other(
        self, h: Tensor, pos: Tensor, above: LevelGraph | None, tokens: Tensor | None = None
    ) -> Tensor:
        """Groups ``[M, D]`` after messages from those of the same group above, and its tokens.

        Args:
            h: Groups, ``[M, D]``.
            pos: Their centres in µm, ``[M, 2]``.
            above: Groups they are in; ``None`` at the top, where groups stand alone.
            tokens: Image tokens of the groups above, ``[R, S, I]``, if there are any.
        """
        if self.conv is None or above is None:
            return h
        if self.position is not None:
            h = h + self.position(pos, above.pos, above.own)
        extra = []
        if self.region is not None:
            extra.append(self.region.to(h.dtype).expand(len(above.pos), -1))
        if self.region_image is not None and tokens is not None:
            extra.append(self.region_image(tokens.mean(dim=1)))
        if not extra:
            return self.conv(h, group_graph(above.own, MAX_NEIGHBORS))
        edges = with_tokens(above.own, len(above.pos), len(extra))
        return self.conv(torch.cat([h, *extra]), edges)[: len(h)]


def with_tokens(own: Tensor, num_groups: int, num_tokens: int) -> EdgeIndex:
    """Edges among the members of groups, and between them and some tokens of each group.

    Args:
        own: Group of each member, ``[M]``; -1 for none.
        num_groups: Number of groups, ``R``.
        num_tokens: Tokens of a group, ``T``. They are rows ``M + t R + r``.

    Returns:
        ``[2, E]`` sorted by target. However large a group is, its tokens hear all members and all
        members hear them.
    """
    first = len(own)
    group = torch.arange(num_groups, device=own.device)
    token = first + torch.arange(num_tokens * num_groups, device=own.device).view(num_tokens, -1)
    member = (own >= 0).nonzero().squeeze(1)
    up = torch.stack([member.expand(num_tokens, -1), token[:, own[member]]]).flatten(1)
    own_tokens = token.T[group]  # [R, T]
    among = torch.stack(
        [own_tokens.repeat(1, num_tokens), own_tokens.repeat_interleave(num_tokens, dim=1)]
    ).flatten(1)
    edges = torch.cat([plain_edges(group_graph(own, MAX_NEIGHBORS)), up, up.flip(0), among], dim=1)
    order = edges[0].argsort(stable=True)
    order = order[edges[1][order].argsort(stable=True)]
    total = first + num_tokens * num_groups
    return EdgeIndex(edges[:, order], sparse_size=(total, total), sort_order="col")


def hide(h: Tensor, hidden: Tensor | None, token: Tensor | None) -> Tensor:
    """Rows with the hidden ones replaced by a learned vector.

    Args:
        h: ``[N, D]``.
        hidden: Rows to replace, ``[N]`` bool; ``None`` for none.
        token: The vector, ``[D]``.

    Raises:
        ValueError: If there is something to hide and no vector.
    """
    if hidden is None:
        return h
    if token is None:
        raise ValueError("Expected a context encoder built with maskable=True to hide parts from")
    return torch.where(hidden.unsqueeze(1), token.to(h.dtype), h)
