"""Context encoder: cell → niche → tissue and back, composed from any convolutions and poolings.

Shape letters: ``N`` cells, ``E`` edges, ``M`` niches, ``R`` tissue regions, ``D`` channels.
"""

import torch
from torch import Tensor, nn
from torch_geometric.utils import coalesce

from spatiagraph.graph.build import group_graph
from spatiagraph.graph.edges import plain_edges
from spatiagraph.graph.hierarchy import niche_positions, region_of
from spatiagraph.models.base import Embeddings
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.pool import NichePool, TissuePool
from spatiagraph.nn.protocols import Pooling
from spatiagraph.nn.top_down import TopDown

MAX_NICHES = 256
"""Niches of its region that a niche sees at most."""


class ContextEncoder(Configurable):
    r"""Cells talk to their neighbours, are pooled into niches and tissue, and hear back.

    .. math::
        \mathbf{h} = \mathrm{Conv}(\mathbf{z}), \quad
        \mathbf{n} = \mathrm{Pool}(\mathbf{h}), \quad
        \mathbf{t} = \mathrm{Pool}(\mathbf{n}), \quad
        \mathbf{z}' = \mathbf{z} + \boldsymbol\gamma_h (\mathbf{h} - \mathbf{z})
        + \boldsymbol\gamma_n \mathbf{W}_n \mathbf{n} + \boldsymbol\gamma_t \mathbf{W}_t \mathbf{t}

    with gates :math:`\boldsymbol\gamma` that start at zero: context never replaces the cell
    unasked.

    Args:
        channels: Size of every embedding, :math:`D`.
        conv: Module ``(h, edge_index, edge_attr) → h`` over cells; ``None`` for no cell-cell
            messages. Any PyG convolution with these arguments will do.
        niche_pool: Pooling of cells, such as :class:`~spatiagraph.nn.NichePool`.
        tissue_pool: Pooling of niches. One of the two that ``assigns`` makes its own groups in
            place of the given ones: no image is known of them, and niches made by ``niche_pool``
            lie in one region per slide.
        edge_encoding: Module ``(pos, edge_index) → [E, F]`` whose output ``conv`` gets as
            ``edge_attr``; ``None`` to call ``conv(h, edge_index)``.
        place: Module ``(pos, center, group) → [N, D]``, such as
            :class:`~spatiagraph.nn.PlaceEncoding`, added to cells before ``conv``: where they lie
            in their niche. For graphs whose edges stay inside niches; tiles are not exact
            otherwise.
        niche_place: The same for niches before ``niche_conv``: where they lie in their region.
        niche_conv: Module ``(h, edge_index) → h`` over the niches of a region, each of which sees
            the others; ``None`` for niches that do not see each other.
        niche_fusion: Module ``(niche [M, 1, D], image tokens [M, S, D]) → change``, such as
            :class:`~spatiagraph.nn.CrossAttention`, through which niches look at their image.
        tissue_fusion: The same for regions.
        maskable: Have the learned vectors that stand for hidden cells and niches.
        use_niche: Send niches back to their cells.
        use_tissue: Send tissue regions back to their cells.
        num_hops: Hops over ``edge_index`` that ``conv`` looks; its ``num_layers`` when not given.

    Shapes:
        - **z**: cells before context, ``[N, D]``
        - **pos**: µm, ``[N, 2]``
        - **edge_index**: ``[2, E]``
        - **niche**: own niche of each cell, ``[N]``, -1 for none
        - **tissue**: region of each niche, ``[M]``
        - **niche_index**: cells → niches they are part of, ``[2, P]``; ``niche`` itself when
          ``None``
        - **niche_pos**, **tissue_pos**: centres in µm, ``[M, 2]`` and ``[R, 2]``; the mean of the
          members when ``None``
        - **niche_tokens**, **tissue_tokens**: image tokens, ``[M, S, D]`` and ``[R, S, D]``
        - **batch**: slide of each cell, ``[N]``; one slide when ``None``
        - **hidden_cells**, **hidden_niches**: replaced by a learned vector, bool ``[N]``, ``[M]``
        - **output**: :class:`Embeddings`

    Raises:
        TypeError: If a pooling does not say whether it ``assigns``.
        ValueError: If groups that a pooling makes are to look at an image, or to be hidden.
    """

    def __init__(
        self,
        channels: int,
        *,
        conv: nn.Module | None = None,
        niche_pool: Pooling | None = None,
        tissue_pool: Pooling | None = None,
        edge_encoding: nn.Module | None = None,
        place: nn.Module | None = None,
        niche_place: nn.Module | None = None,
        niche_conv: nn.Module | None = None,
        niche_fusion: nn.Module | None = None,
        tissue_fusion: nn.Module | None = None,
        maskable: bool = False,
        use_niche: bool = True,
        use_tissue: bool = True,
        num_hops: int | None = None,
    ):
        super().__init__()
        self.channels = channels
        self.conv = conv
        self.edge_encoding = edge_encoding
        self.place = place
        self.niche_place = niche_place
        self.niche_conv = niche_conv
        self.niche_fusion = niche_fusion
        self.tissue_fusion = tissue_fusion
        self.hidden_cell = nn.Parameter(torch.randn(channels) * 0.02) if maskable else None
        self.hidden_niche = nn.Parameter(torch.randn(channels) * 0.02) if maskable else None
        niche_pool = NichePool(channels) if niche_pool is None else niche_pool
        tissue_pool = TissuePool(channels) if tissue_pool is None else tissue_pool
        self.niche_pool = _checked(niche_pool, niche_fusion)
        self.tissue_pool = _checked(tissue_pool, tissue_fusion)
        default_hops = 0 if conv is None else int(getattr(conv, "num_layers", 1))
        self.num_hops = default_hops if num_hops is None else num_hops
        self.gate = nn.Parameter(torch.zeros(channels)) if conv is not None else None
        self.from_niche = TopDown(channels) if use_niche else None
        self.from_tissue = TopDown(channels) if use_tissue else None

    def forward(
        self,
        z: Tensor,
        pos: Tensor,
        edge_index: Tensor,
        niche: Tensor,
        tissue: Tensor,
        *,
        niche_index: Tensor | None = None,
        niche_pos: Tensor | None = None,
        tissue_pos: Tensor | None = None,
        niche_tokens: Tensor | None = None,
        tissue_tokens: Tensor | None = None,
        batch: Tensor | None = None,
        hidden_cells: Tensor | None = None,
        hidden_niches: Tensor | None = None,
    ) -> Embeddings:
        members = niche if niche_index is None else niche_index
        seen = _hide(z, hidden_cells, self.hidden_cell)
        if niche_pos is None and (self.place is not None or self.niche_place is not None):
            niche_pos = niche_positions(pos, members)
        if self.place is not None:
            seen = seen + self.place(pos, niche_pos, niche)
        h = self._converse(seen, pos, edge_index)
        niches = self.niche_pool(h, members, tissue.numel(), edge_index=edge_index, batch=batch)
        own = niche if niches.assignment is None else niches.assignment
        slide: Tensor | None
        if niches.batch is None:
            slide = _slide_of_group(members, batch, tissue.numel())
        elif hidden_niches is None:  # made by the pooling: one region per slide
            slide = tissue = niches.batch
            niche_pos, tissue_pos = niche_positions(pos, own, niches.h.size(0)), None
        else:
            raise ValueError("Expected no 'hidden_niches' where the pooling makes the niches")
        alone = niches.h
        if self.niche_fusion is not None and niche_tokens is not None:
            alone = alone + self.niche_fusion(alone.unsqueeze(1), niche_tokens).squeeze(1)
        h_niche = _hide(alone, hidden_niches, self.hidden_niche)
        if self.niche_conv is not None:
            if self.niche_place is not None:
                assert niche_pos is not None  # set above
                if tissue_pos is None:
                    tissue_pos = niche_positions(niche_pos, tissue)
                h_niche = h_niche + self.niche_place(niche_pos, tissue_pos, tissue)
            h_niche = self.niche_conv(h_niche, group_graph(tissue, MAX_NICHES))
        edges = _niche_graph(edge_index, own)
        regions = self.tissue_pool(h_niche, tissue, edge_index=edges, batch=slide)
        region = tissue if regions.assignment is None else regions.assignment
        h_region = regions.h
        if self.tissue_fusion is not None and tissue_tokens is not None:
            h_region = h_region + self.tissue_fusion(h_region.unsqueeze(1), tissue_tokens).squeeze(
                1
            )

        cell = z if self.gate is None else z + self.gate * (h - z)
        if self.from_niche is not None:
            cell = self.from_niche(cell, h_niche, own)
        if self.from_tissue is not None:
            cell = self.from_tissue(cell, h_region, region_of(own, region))
        losses = [x for x in (niches.loss, regions.loss) if x is not None]
        loss = torch.stack(losses).sum() if losses else None
        return Embeddings(cell, h_niche, h_region, own, region, loss, h, alone)

    def _converse(self, h: Tensor, pos: Tensor, edge_index: Tensor) -> Tensor:
        """Cells after messages from their neighbours."""
        if self.conv is None:
            return h
        if self.edge_encoding is None:
            return self.conv(h, edge_index)
        return self.conv(h, edge_index, self.edge_encoding(pos, edge_index))


def _hide(h: Tensor, hidden: Tensor | None, token: Tensor | None) -> Tensor:
    if hidden is None:
        return h
    if token is None:
        raise ValueError("Expected a context encoder built with maskable=True to hide parts from")
    return torch.where(hidden.unsqueeze(1), token.to(h.dtype), h)


def _checked(pool: Pooling, fusion: nn.Module | None) -> Pooling:
    """The pooling, if it says whether it assigns, and no image is looked at where it does."""
    if not isinstance(pool, Pooling):
        raise TypeError(
            f"Expected a pooling with an attribute 'assigns', got {type(pool).__name__}: set it to "
            "True if the pooling makes its own groups, else to False"
        )
    if pool.assigns and fusion is not None:
        raise ValueError(
            f"Expected given groups for a fusion with their image, but {type(pool).__name__} makes "
            "its own: leave out one of the two"
        )
    return pool


def _slide_of_group(index: Tensor, batch: Tensor | None, num_groups: int) -> Tensor | None:
    """Slide of each group, ``[M]``, by its members; -1 for a group without any."""
    if batch is None:
        return None
    if index.dim() == 2:
        member, group = plain_edges(index)
    else:
        member = (index >= 0).nonzero().squeeze(1)
        group = index[member]
    return batch.new_full((num_groups,), -1).scatter(0, group, batch[member])


def _niche_graph(edge_index: Tensor, niche: Tensor) -> Tensor:
    """Niches are joined where cells of theirs are, for poolings that look at edges."""
    edges = niche[plain_edges(edge_index)]
    return coalesce(edges[:, (edges >= 0).all(0) & (edges[0] != edges[1])])
