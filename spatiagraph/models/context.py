"""Cells in context: cell → niche → tissue and back, in a small complete model.

Shape letters: ``N`` cells, ``E`` edges, ``M`` niches, ``R`` tissue regions, ``D`` channels.
"""

from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch_geometric.data import Data

from spatiagraph.data.cohort import one_channel_number, one_expression, spot_pitch_um
from spatiagraph.data.convert import SlideToGraph
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide
from spatiagraph.heads.expression import ExpressionHead
from spatiagraph.models.base import Embeddings, SlideModel, sample_of_cells
from spatiagraph.models.context_encoder import ContextEncoder
from spatiagraph.nn.cell import CellEncoder
from spatiagraph.nn.encoding import EdgeEncoding
from spatiagraph.nn.fusion import CrossModalFusion
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.image import ImageEncoder
from spatiagraph.nn.pool import NichePool, TissuePool
from spatiagraph.nn.transformer import GraphTransformer

CELL_WINDOW_UM = 13.6
"""Side of the crop around a cell: 64 px of Xenium."""


class ContextModel(SlideModel):
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
        counts = one_expression(slides) == "counts"
        with_image = [slide.image is not None for slide in slides]
        use_image = image is not None and (all(with_image) if image == "auto" else True)
        if use_image and not any(with_image):
            raise ValueError("Expected an image with the slides, got none: pass image=None")
        prepare = SlideToGraph(
            panel,
            num_neighbors=num_neighbors,
            niche_size=niche_size,
            tissue_size=tissue_size,
            window_um=(window_um or spot_pitch_um(slides) or CELL_WINDOW_UM) if use_image else None,
            size_px=size_px,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            genes = GeneEncoder(len(panel), channels, normalize_depth=counts, fixed_basis=True)
            encoder = fusion = None
            if use_image:
                encoder = _image_encoder(str(image), channels, one_channel_number(slides), size_px)
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
        x, mask, depth = sample_of_cells(self.panel, slides, max_cells, seed)
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
        batch: Tensor | None = None,
    ) -> Embeddings:
        z = self.cell_encoder(x, image, gene_mask=gene_mask, depth=depth, image_mask=image_mask)
        return self.context_encoder(
            z, pos, edge_index, niche, tissue, niche_index=niche_index, batch=batch
        )

    def inputs(self, batch: Data, visible: Tensor | None = None) -> dict[str, Any]:
        """Arguments of :meth:`forward` from a batch, with only ``visible`` genes shown."""
        keys = ("pos", "edge_index", "niche", "tissue", "niche_index")
        return {
            **self.cell_inputs(batch, visible),
            **{key: batch[key] for key in keys},
            "batch": batch.get("batch"),
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
