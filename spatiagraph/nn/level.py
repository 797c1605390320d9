"""One level of groups above the cells: pooling, convolution among groups, and top-down update."""

import torch
from torch import Tensor, nn

from spatiagraph.graph.build import group_graph
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

    Raises:
        TypeError: If the pooling does not say whether it ``assigns``.
        ValueError: If groups that the pooling makes itself are to look at an image.
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
        self.channels = channels
        self.pool = pool
        self.conv = conv
        self.position = position
        self.look = look
        self.top_down = TopDown(channels) if top_down else None
        self.hidden = nn.Parameter(torch.randn(channels) * 0.02) if maskable else None

    def see_image(self, h: Tensor, tokens: Tensor | None) -> Tensor:
        """Groups ``[M, D]`` after a look at their image tokens ``[M, S, I]``, if there are any."""
        if self.look is None or tokens is None:
            return h
        return h + self.look(h.unsqueeze(1), tokens).squeeze(1)

    def see_each_other(self, h: Tensor, pos: Tensor, above: LevelGraph | None) -> Tensor:
        """Groups ``[M, D]`` after messages from those of the same group above.

        Args:
            h: Groups, ``[M, D]``.
            pos: Their centres in µm, ``[M, 2]``.
            above: Groups they are in; ``None`` at the top, where groups stand alone.
        """
        if self.conv is None or above is None:
            return h
        if self.position is not None:
            h = h + self.position(pos, above.pos, above.own)
        return self.conv(h, group_graph(above.own, MAX_NEIGHBORS))


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
