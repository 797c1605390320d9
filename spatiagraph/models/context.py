"""Cells in context: cell → niche → tissue and back, and a small complete model of it.

Shape letters: ``N`` cells, ``E`` edges, ``M`` niches, ``R`` tissue regions, ``D`` channels.
"""

from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from spatiagraph.data.convert import SlideToGraph
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide
from spatiagraph.graph.edges import plain_edges
from spatiagraph.heads.expression import ExpressionHead
from spatiagraph.models.hub import PretrainedModel
from spatiagraph.nn.cell import CellEncoder
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.encoding import EdgeEncoding
from spatiagraph.nn.fusion import CrossModalFusion
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.image import ImageEncoder
from spatiagraph.nn.pool import NichePool, TissuePool
from spatiagraph.nn.top_down import TopDown
from spatiagraph.nn.transformer import GraphTransformer


class Embeddings(NamedTuple):
    """Embeddings of the three levels.

    Attributes:
        cell: Cells in context, ``[N, D]``.
        niche: Niches, ``[M, D]``.
        tissue: Tissue regions, ``[R, D]``.
        niche_of_cell: Niche of each cell, ``[N]``; -1 for none.
        tissue_of_niche: Region of each niche, ``[M]``; -1 for none.
        loss: Auxiliary loss of learned poolings, or ``None``.
    """

    cell: Tensor
    niche: Tensor
    tissue: Tensor
    niche_of_cell: Tensor
    tissue_of_niche: Tensor
    loss: Tensor | None = None


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
        tissue_pool: Pooling of niches.
        edge_encoding: Module ``(pos, edge_index) → [E, F]`` whose output ``conv`` gets as
            ``edge_attr``; ``None`` to call ``conv(h, edge_index)``.
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
        - **output**: :class:`Embeddings`
    """

    def __init__(
        self,
        channels: int,
        *,
        conv: nn.Module | None = None,
        niche_pool: nn.Module | None = None,
        tissue_pool: nn.Module | None = None,
        edge_encoding: nn.Module | None = None,
        use_niche: bool = True,
        use_tissue: bool = True,
        num_hops: int | None = None,
    ):
        super().__init__()
        self.channels = channels
        self.conv = conv
        self.edge_encoding = edge_encoding
        self.niche_pool = NichePool(channels) if niche_pool is None else niche_pool
        self.tissue_pool = TissuePool(channels) if tissue_pool is None else tissue_pool
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
    ) -> Embeddings:
        h = z
        if self.conv is not None and self.edge_encoding is None:
            h = self.conv(z, edge_index)
        elif self.conv is not None and self.edge_encoding is not None:
            h = self.conv(z, edge_index, self.edge_encoding(pos, edge_index))
        members = niche if niche_index is None else niche_index
        niches = self.niche_pool(h, members, tissue.numel(), edge_index=edge_index)
        # a learned pooling makes its own niches: their cells, and one region for all of them
        own = niche if niches.assignment is None else niches.assignment
        if niches.h.size(0) != tissue.numel():
            tissue = tissue.new_zeros(niches.h.size(0))
        regions = self.tissue_pool(niches.h, tissue, edge_index=_niche_graph(edge_index, own))
        region = tissue if regions.assignment is None else regions.assignment

        cell = z if self.gate is None else z + self.gate * (h - z)
        if self.from_niche is not None:
            cell = self.from_niche(cell, niches.h, own)
        if self.from_tissue is not None:
            of_cell = torch.where(own >= 0, region[own.clamp(min=0)], -1)
            cell = self.from_tissue(cell, regions.h, of_cell)
        losses = [x for x in (niches.loss, regions.loss) if x is not None]
        loss = torch.stack(losses).sum() if losses else None
        return Embeddings(cell, niches.h, regions.h, own, region, loss)


def _niche_graph(edge_index: Tensor, niche: Tensor) -> Tensor:
    """Niches are joined where cells of theirs are, for poolings that look at edges."""
    edges = niche[plain_edges(edge_index)]
    return edges[:, (edges >= 0).all(0) & (edges[0] != edges[1])].unique(dim=1)


class ContextModel(PretrainedModel):
    """Small complete model: cell encoder, context encoder and an expression decoder per level.

    Build it from parts, or with :meth:`for_slides`, which chooses the genes, builds the parts
    and starts them from the principal components of the slides.

    Args:
        prepare: How a slide becomes a graph; saved with the model.
        cell_encoder: Genes and image → ``[N, D]``, such as :class:`~spatiagraph.nn.CellEncoder`.
        context_encoder: Cells → :class:`Embeddings`, such as :class:`ContextEncoder`.
        likelihood: ``"nb"`` for counts, ``"gaussian"`` for values that are normalised already.

    Shapes:
        As :class:`~spatiagraph.nn.CellEncoder` and :class:`ContextEncoder`.
    """

    name = "context"

    def __init__(
        self,
        prepare: SlideToGraph,
        cell_encoder: CellEncoder,
        context_encoder: ContextEncoder,
        *,
        likelihood: Literal["nb", "gaussian"] = "nb",
    ):
        super().__init__()
        if likelihood not in ("nb", "gaussian"):
            raise ValueError(f"Expected 'likelihood' nb or gaussian, got {likelihood!r}")
        self.prepare = prepare
        self.likelihood = likelihood
        self.cell_encoder = cell_encoder
        self.context_encoder = context_encoder
        channels, num_genes = context_encoder.channels, len(prepare.panel)
        self.head = ExpressionHead(channels, num_genes)
        self.niche_head = ExpressionHead(channels, num_genes)

    @property
    def panel(self) -> GenePanel:
        """The genes the model reads."""
        return self.prepare.panel

    @property
    def num_hops(self) -> int:
        """Hops over the cell graph that a cell embedding depends on."""
        return self.context_encoder.num_hops

    @classmethod
    def for_slides(
        cls,
        slides: list[Slide],
        *,
        channels: int = 32,
        num_genes: int | None = 1000,
        num_layers: int = 1,
        heads: int = 4,
        num_neighbors: int = 8,
        niche_size: int = 15,
        tissue_size: int = 256,
        image: str | None = "auto",
        window_um: float | None = None,
        size_px: int = 32,
        seed: int = 0,
    ) -> Self:
        """A model that fits the slides: their genes, their image channels, their components.

        Args:
            slides: The slides to be trained on.
            channels: Size of every embedding, :math:`D`.
            num_genes: Most variable genes to read; all of them when ``None``.
            num_layers: Layers of the graph transformer.
            heads: Attention heads.
            num_neighbors: Neighbours of a cell in the graph.
            niche_size: A niche is a cell and this many nearest others.
            tissue_size: Most cells of a tissue region.
            image: timm model of the crops; ``"auto"`` is a small ViT where every slide has an
                image, and none elsewhere; ``None`` reads genes alone.
            window_um: Side of the crop around a cell; 13.6 µm for cells, and the distance
                between spots for spots, when not given.
            size_px: Side of the crop in pixels.
            seed: Seed of the starting weights.
        """
        panel = GenePanel.from_slides(slides, num_genes=num_genes)
        kinds = sorted({slide.expression for slide in slides})
        if len(kinds) > 1:
            raise ValueError(f"Expected slides with one kind of expression, got {kinds}")
        with_image = [slide.image is not None for slide in slides]
        use_image = image is not None and (all(with_image) if image == "auto" else True)
        if use_image and not any(with_image):
            raise ValueError("Expected an image with the slides, got none: pass image=None")
        prepare = SlideToGraph(
            panel,
            num_neighbors=num_neighbors,
            niche_size=niche_size,
            tissue_size=tissue_size,
            window_um=_window_um(slides, window_um) if use_image else None,
            size_px=size_px,
        )
        counts = kinds[0] == "counts"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            genes = GeneEncoder(len(panel), channels, normalize_depth=counts, fixed_basis=True)
            encoder = fusion = None
            if use_image:
                bands = {s.image.num_channels for s in slides if s.image is not None}
                if len(bands) > 1:
                    raise ValueError(
                        f"Expected images with the same number of channels, got {sorted(bands)}"
                    )
                encoder = _image_encoder(str(image), channels, bands.pop(), size_px)
                fusion = CrossModalFusion(channels, heads=heads)
            edge_encoding = EdgeEncoding(8)
            context = ContextEncoder(
                channels,
                conv=GraphTransformer(
                    channels, num_layers, heads, edge_dim=edge_encoding.out_channels, init_scale=0.0
                ),
                edge_encoding=edge_encoding,
                niche_pool=NichePool(channels, heads),
                tissue_pool=TissuePool(channels, heads),
            )
            model = cls(
                prepare,
                CellEncoder(genes, encoder, fusion),
                context,
                likelihood="nb" if counts else "gaussian",
            )
        model.initialize(slides, seed=seed)
        return model

    def initialize(self, slides: list[Slide], *, max_cells: int = 20_000, seed: int = 0) -> None:
        """Start genes from principal components and decoders from the mean profile.

        Args:
            slides: Where the components come from.
            max_cells: Cells drawn from each slide at most.
            seed: Seed of the draw.
        """
        parts, masks, depths = [], [], []
        for slide in slides:
            counts, measured = self.panel.counts(slide)
            generator = torch.Generator().manual_seed(seed)
            rows = torch.randperm(counts.shape[0], generator=generator)[:max_cells].sort().values
            parts.append(torch.from_numpy(counts[rows.numpy()].toarray()))
            mask = torch.as_tensor(measured)
            masks.append(mask.expand(rows.numel(), -1))
            depths.append(torch.as_tensor(slide.depth)[rows])
        x, mask, depth = torch.cat(parts), torch.cat(masks), torch.cat(depths)
        if self.cell_encoder.genes is not None:
            self.cell_encoder.genes.initialize(x, mask, depth, seed=seed)
        if self.likelihood == "nb":
            self.head.initialize(x)
            self.niche_head.initialize(x)

    def forward(
        self,
        x: Tensor | None,
        pos: Tensor,
        edge_index: Tensor,
        niche: Tensor,
        tissue: Tensor,
        *,
        niche_index: Tensor | None = None,
        gene_mask: Tensor | None = None,
        depth: Tensor | None = None,
        image: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> Embeddings:
        z = self.cell_encoder(x, image, gene_mask=gene_mask, depth=depth, image_mask=image_mask)
        return self.context_encoder(z, pos, edge_index, niche, tissue, niche_index=niche_index)

    @staticmethod
    def gene_mask(batch: Data) -> Tensor:
        """Measured genes of each cell, ``[N, G]``."""
        mask = batch.gene_mask
        if mask.dim() == 2 and mask.size(0) != batch.num_nodes:
            mask = mask[batch.batch]  # one row per slide → one per cell
        return mask.expand(batch.num_nodes, -1)

    def inputs(self, batch: Data, visible: Tensor | None = None) -> dict[str, Any]:
        """Arguments of :meth:`forward` from a batch, with only ``visible`` genes shown."""
        image = batch.get("image")
        return {
            "x": batch.x,
            "pos": batch.pos,
            "edge_index": batch.edge_index,
            "niche": batch.niche,
            "tissue": batch.tissue,
            "niche_index": batch.niche_index,
            "gene_mask": self.gene_mask(batch) if visible is None else visible,
            "depth": batch.depth,
            "image": image,
            "image_mask": None if image is None else batch.image_mask,
        }


def _image_encoder(name: str, channels: int, bands: int, size_px: int) -> ImageEncoder:
    if name != "auto":
        return ImageEncoder(name, channels, in_channels=bands)
    return ImageEncoder(
        "vit_tiny_patch16_224",
        channels,
        in_channels=bands,
        tokens=True,
        img_size=size_px,
        patch_size=max(4, size_px // 4),
        depth=2,
        embed_dim=64,
        num_heads=2,
    )


def _window_um(slides: list[Slide], window_um: float | None) -> float:
    """13.6 µm (64 px of Xenium) around a cell; spots are given the distance between them."""
    if window_um is not None:
        return window_um
    from spatiagraph.data.units import lattice

    grids = [lattice(slide.pos) for slide in slides]
    pitches = [grid.pitch for grid in grids if grid is not None]
    return max(pitches) if pitches else 13.6
