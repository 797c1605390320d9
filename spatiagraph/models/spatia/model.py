"""SPATIA: cells, niches and tissue from genes, images and places, as a composition of the blocks.

Shape letters: ``N`` cells, ``M`` niches, ``R`` tissue regions, ``G`` genes, ``L`` gene tokens,
``K`` labels, ``D`` channels.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from spatiagraph.data.cohort import one_channel_number, one_expression, spot_pitch_um
from spatiagraph.data.convert import SlideToGraph
from spatiagraph.data.labels import LabelSet
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide
from spatiagraph.heads.expression import ExpressionHead
from spatiagraph.heads.token_expression import TokenExpressionHead
from spatiagraph.models.base import Embeddings, SlideModel, sample_of_cells
from spatiagraph.models.spatia.parts import context_encoder, crop_encoder
from spatiagraph.models.spatia.presets import PRESETS
from spatiagraph.nn.gene_tokens import GeneTokenEncoder, Normalization
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.image_statistics import ImageStatistics
from spatiagraph.nn.masked_image import MaskedImageEncoder
from spatiagraph.nn.token_cell import CellStreams, TokenCellEncoder, Tokenizer
from spatiagraph.nn.token_fusion import Direction, Residual, TokenFusion

Niche = Literal["grid", "knn", "radius", "labels"]


class Spatia(SlideModel):
    r"""Multi-scale representation of cells, niches and tissue, after SPATIA.

    - *Cell*: gene tokens and image tokens, fused by cross-attention in both directions
      (:class:`~spatiagraph.nn.TokenCellEncoder`).
    - *Niche*: its cells attend to each other, knowing where in the niche they lie, and are pooled
      by a learned query, which may look at the image of the niche as well.
    - *Tissue*: the niches of a region do the same, one level up.
    - *Back*: :math:`\mathbf{z}_i = \mathbf{z}^{cell}_i + \boldsymbol\gamma_n \mathbf{W}_n
      \mathbf{z}^{niche} + \boldsymbol\gamma_t \mathbf{W}_t \mathbf{z}^{tissue}` through gates that
      start at zero, so that context never replaces the cell unasked.

    Follows `"SPATIA: Multimodal Generation and Prediction of Spatial Cell Phenotypes"
    <https://arxiv.org/abs/2507.04704>`_. What differs from the public code is said where it can be
    chosen: ``profile``, ``fusion_direction``, ``fusion_residual``, ``tokenizer``.
    :meth:`for_slides` chooses what depends on the slides.

    Args:
        panel: The genes the model reads, in order.
        channels: Size of every embedding, :math:`D`; a multiple of 4.
        gene_channels: Size of gene tokens.
        gene_layers: Layers of the gene encoder.
        heads: Attention heads of gene encoder and fusion.
        num_tokens: Genes of each cell that become tokens at most.
        tokenizer: ``"counts"``, or ``"bins"`` for quantile bins of expressed genes as in scGPT.
        normalization: How counts enter, ``"sum"`` or ``"log2p1"``, see
            :class:`~spatiagraph.nn.GeneTokenEncoder`.
        profile: Start from the principal components of the whole profile, and of colours and
            textures of the crop, see :class:`~spatiagraph.nn.TokenCellEncoder`; ``False`` is the
            published model.
        image: Name of a timm ViT (a masked autoencoder then) or CNN.
        in_channels: Image channels: 1 for DAPI, 3 for H&E.
        size_px: Side of each crop in pixels.
        mask_ratio: Share of patches hidden in training.
        image_options: Further arguments of the timm model.
        pretrained: Load published image weights from the hub.
        checkpoint: Local weights of the timm model.
        fusion_weight: Weight of the other modality in the fusion, 0 to 1.
        fusion_direction: ``"both"``, ``"gene_queries"`` or ``"image_queries"``.
        fusion_residual: ``"corrected"``, or ``"double"`` as in the public code.
        decoder_channels: Width of the decoder of hidden patches.
        decoder_layers: Layers of it.
        niche: What a niche is: ``"grid"`` squares, the ``"knn"`` or ``"radius"`` neighbourhood of
            each cell, or ``"labels"`` of an ``obs`` column.
        niche_um: Side of a square, or radius of a neighbourhood.
        niche_size: Nearest cells in a ``"knn"`` neighbourhood, and neighbours of a cell in its
            graph.
        niche_key: ``obs`` column of ``niche="labels"``.
        tissue_um: Side of a tissue region.
        niche_layers: Layers of attention between the cells of a niche.
        tissue_layers: Layers of attention between the niches of a region.
        context_heads: Attention heads of both.
        niche_image: Let niches look at their image.
        tissue_image: Let tissue regions look at theirs.
        use_gene: Read genes.
        use_image: Read images.
        use_niche: Send niches back to their cells.
        use_tissue: Send tissue regions back to their cells.
        window_um: Side of the crop around a cell.
        window_key: ``obs`` column with the window of each cell, for crops that are all zoomed to
            one size; the model is told its size.
        labels: Classes of the supervised labels; each gets a token and a classifier.
        likelihood: ``"zinb"`` for counts, ``"gaussian"`` for values that are normalised already.
        dropout: Dropout everywhere.

    Shapes:
        - **x**: counts, ``[N, G]``
        - **image**: crops in ``[0, 1]``, ``[N, C, H, W]``
        - **z**: cell embeddings computed before, ``[N, D]``, instead of both
        - the rest as for :class:`~spatiagraph.models.ContextEncoder`
        - **output**: :class:`~spatiagraph.models.Embeddings`

    Raises:
        ValueError: If an option is unknown, or neither genes nor images are read.
    """

    name = "spatia"
    tile_size = 512
    unsaved = {"pretrained": False, "checkpoint": None}

    def __init__(
        self,
        panel: GenePanel,
        *,
        channels: int = 512,
        gene_channels: int = 256,
        gene_layers: int = 8,
        heads: int = 4,
        num_tokens: int | None = 1000,
        tokenizer: Tokenizer = "counts",
        normalization: Normalization = "sum",
        profile: bool = True,
        image: str = "vit_base_patch16_224",
        in_channels: int = 1,
        size_px: int = 224,
        mask_ratio: float = 0.75,
        image_options: Mapping[str, Any] | None = None,
        pretrained: bool = False,
        checkpoint: str | None = None,
        fusion_weight: float = 1.0,
        fusion_direction: Direction = "both",
        fusion_residual: Residual = "corrected",
        decoder_channels: int = 512,
        decoder_layers: int = 8,
        niche: Niche = "grid",
        niche_um: float = 54.4,
        niche_size: int = 16,
        niche_key: str | None = None,
        tissue_um: float = 217.6,
        niche_layers: int = 2,
        tissue_layers: int = 4,
        context_heads: int = 8,
        niche_image: bool = False,
        tissue_image: bool = False,
        use_gene: bool = True,
        use_image: bool = True,
        use_niche: bool = True,
        use_tissue: bool = True,
        window_um: float = 13.6,
        window_key: str | None = None,
        labels: LabelSet | None = None,
        likelihood: Literal["zinb", "gaussian"] = "zinb",
        dropout: float = 0.1,
    ):
        super().__init__()
        if likelihood not in ("zinb", "gaussian"):
            raise ValueError(f"Expected 'likelihood' zinb or gaussian, got {likelihood!r}")
        if niche not in ("grid", "knn", "radius", "labels"):
            raise ValueError(f"Expected 'niche' grid, knn, radius or labels, got {niche!r}")
        if not (use_gene or use_image):
            raise ValueError("Expected use_gene, use_image or both: the model would read nothing")
        counts = likelihood == "zinb"
        self.likelihood = likelihood
        self.labels = labels
        self.prepare = SlideToGraph(
            panel,
            num_neighbors=niche_size,
            niche_size=niche_size,
            graph={"knn": "knn", "radius": "radius"}.get(niche, "niche"),  # type: ignore[arg-type]
            niche={"knn": "neighborhood"}.get(niche, niche),  # type: ignore[arg-type]
            niche_um=niche_um,
            radius_um=niche_um,
            niche_key=niche_key,
            tissue="grid",
            tissue_um=tissue_um,
            window_um=window_um if use_image else None,
            window_key=window_key if use_image else None,
            size_px=size_px,
            niche_image=niche_image and use_image,
            tissue_image=tissue_image and use_image,
            labels=labels,
        )
        num_labels = 0 if labels is None else len(labels.num_classes)
        genes = fusion = None
        images: Any = None
        if use_gene:
            genes = GeneTokenEncoder(
                len(panel),
                gene_channels,
                num_labels=num_labels,
                num_layers=gene_layers,
                heads=heads,
                dropout=dropout,
                normalization=normalization if tokenizer == "counts" and counts else "none",
            )
        self.image_decoder = None
        if use_image:
            images, self.image_decoder = crop_encoder(
                image,
                channels,
                {"in_channels": in_channels, "pretrained": pretrained, "checkpoint": checkpoint},
                image_options or {},
                size_px=size_px,
                mask_ratio=mask_ratio,
                read_window=window_key is not None,
                decoder_channels=decoder_channels,
                decoder_layers=decoder_layers,
            )
            fusion = TokenFusion(
                gene_channels,
                images.channels,
                channels,
                num_cell_tokens=2 + num_labels,
                heads=heads,
                weight=fusion_weight,
                direction=fusion_direction,
                residual=fusion_residual,
                dropout=dropout,
            )
        self.cell_encoder = TokenCellEncoder(
            channels,
            genes,
            images,
            fusion,
            profile=GeneEncoder(len(panel), channels, normalize_depth=counts, fixed_basis=True)
            if profile and use_gene
            else None,
            image_profile=ImageStatistics(channels) if profile and use_image else None,
            num_tokens=num_tokens,
            tokenizer=tokenizer,
        )
        self.context_encoder = context_encoder(
            channels,
            inside=self.prepare.graph == "niche",
            niche_layers=niche_layers,
            tissue_layers=tissue_layers,
            heads=context_heads,
            dropout=dropout,
            niche_tokens=images.channels if images and niche_image else None,
            tissue_tokens=images.channels if images and tissue_image else None,
            use_niche=use_niche,
            use_tissue=use_tissue,
        )
        self.token_head = TokenExpressionHead(gene_channels, dropout) if use_gene else None
        self.head = ExpressionHead(channels, len(panel))
        self.niche_head = nn.Linear(channels, len(panel))
        both = use_gene and use_image
        self.project_genes = nn.Linear(gene_channels, channels) if both else None
        self.project_image = nn.Linear(images.channels, channels) if both and images else None
        sizes = [] if labels is None or not use_gene else labels.num_classes
        classifiers = [nn.Linear(gene_channels, size) for size in sizes]
        for classifier in classifiers:
            nn.init.constant_(classifier.bias, -0.13)
        self.classifiers = nn.ModuleList(classifiers)

    @property
    def num_parameters(self) -> int:
        """Numbers that the model is made of, trained or not."""
        return sum(p.numel() for p in self.parameters())

    def extra_repr(self) -> str:
        return f"{self.num_parameters:,} parameters"

    @classmethod
    def tiny(cls, panel: GenePanel, **arguments: Any) -> Self:
        """For tests and laptops without GPU: minutes on some thousand cells.

        Args:
            panel: The genes the model reads.
            **arguments: Arguments of :class:`Spatia` that are to differ.
        """
        return cls(panel, **{**PRESETS["tiny"], **arguments})

    @classmethod
    def small(cls, panel: GenePanel, **arguments: Any) -> Self:
        """For one GPU.

        Args:
            panel: The genes the model reads.
            **arguments: Arguments of :class:`Spatia` that are to differ.
        """
        return cls(panel, **{**PRESETS["small"], **arguments})

    @classmethod
    def base(cls, panel: GenePanel, **arguments: Any) -> Self:
        """The published size: gene encoder of 8 × 256, ViT-B/16, 512 channels.

        Args:
            panel: The genes the model reads.
            **arguments: Arguments of :class:`Spatia` that are to differ.
        """
        return cls(panel, **{**PRESETS["base"], **arguments})

    @classmethod
    def for_slides(
        cls,
        slides: list[Slide],
        preset: Literal["tiny", "small", "base"] = "tiny",
        *,
        num_genes: int | None = 1000,
        labels: list[str] | None = None,
        seed: int = 0,
        **arguments: Any,
    ) -> Self:
        """A model that fits the slides: genes, image channels, niches, principal components.

        Spots of a capture array stand for several cells each: the window is then the distance
        between spots, and a niche the spots around each, unless told otherwise.

        Args:
            slides: The slides to be trained on.
            preset: Size of the model.
            num_genes: Most variable genes to read; all of them when ``None``.
            labels: ``obs`` columns to learn to classify.
            seed: Seed of the starting weights.
            **arguments: Arguments of :class:`Spatia` that are to differ.

        Raises:
            ValueError: If slides differ in expression or image channels, or an argument is wrong.
        """
        if preset not in PRESETS:
            raise ValueError(f"Expected 'preset' {', '.join(PRESETS)}, got {preset!r}")
        panel = GenePanel.from_slides(slides, num_genes=num_genes)
        counts = one_expression(slides) == "counts"
        chosen: dict[str, Any] = {"likelihood": "zinb" if counts else "gaussian"}
        chosen["use_image"] = any(slide.image is not None for slide in slides)
        if arguments.get("use_image", chosen["use_image"]):
            chosen["in_channels"] = one_channel_number(slides)
        pitch_um = spot_pitch_um(slides)
        if pitch_um is not None:
            chosen.update(window_um=pitch_um, niche="knn", niche_size=8, tissue_um=8 * pitch_um)
        if labels:
            chosen["labels"] = LabelSet.from_slides(slides, labels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls(panel, **{**PRESETS[preset], **chosen, **arguments})
        model.initialize(slides, seed=seed)
        return model

    def initialize(self, slides: list[Slide], *, max_cells: int = 20_000, seed: int = 0) -> None:
        """Start the profile from principal components and decoders from the mean profile.

        Args:
            slides: Where the components come from.
            max_cells: Cells drawn from each slide at most.
            seed: Seed of the draw.
        """
        x, mask, depth = sample_of_cells(self.panel, slides, max_cells, seed)
        if self.cell_encoder.profile is not None:
            self.cell_encoder.profile.initialize(x, mask, depth, seed=seed)
        if self.cell_encoder.image_profile is not None:
            self.cell_encoder.image_profile.initialize(self._sample_crops(slides, seed))
        if self.likelihood == "zinb":
            self.head.initialize(x)

    def _sample_crops(self, slides: list[Slide], seed: int, num_cells: int = 1000) -> Tensor:
        """Crops of random cells of each slide, ``[n, C, H, W]``."""
        found = []
        for slide in slides:
            if slide.image is None:
                continue
            generator = torch.Generator().manual_seed(seed)
            order = torch.randperm(slide.num_cells, generator=generator)
            rows = order[:num_cells].sort().values.numpy()
            window = self.prepare.window_of(slide)
            window = window if isinstance(window, float) else window[rows]
            crops, inside = slide.image.crops(slide.pos[rows], window, self.prepare.size_px)
            found.append(torch.from_numpy(crops[inside]))
        return torch.cat(found)

    def forward(
        self,
        x: Tensor | None,
        pos: Tensor,
        edge_index: Tensor,
        niche: Tensor,
        tissue: Tensor,
        *,
        niche_index: Tensor | None = None,
        niche_pos: Tensor | None = None,
        tissue_pos: Tensor | None = None,
        gene_mask: Tensor | None = None,
        depth: Tensor | None = None,
        image: Tensor | None = None,
        image_mask: Tensor | None = None,
        window_um: Tensor | None = None,
        niche_image: Tensor | None = None,
        tissue_image: Tensor | None = None,
        z: Tensor | None = None,
    ) -> Embeddings:
        if z is None:
            z = self.cell_encoder(
                x,
                image,
                gene_mask=gene_mask,
                depth=depth,
                image_mask=image_mask,
                window_um=window_um,
            )
        return self._in_context(
            z,
            niche_image,
            tissue_image,
            pos=pos,
            edge_index=edge_index,
            niche=niche,
            tissue=tissue,
            niche_index=niche_index,
            niche_pos=niche_pos,
            tissue_pos=tissue_pos,
        )

    def context(
        self,
        z: Tensor,
        batch: Data,
        *,
        hidden_cells: Tensor | None = None,
        hidden_niches: Tensor | None = None,
    ) -> Embeddings:
        """Cells of a batch that are encoded already, in context.

        Args:
            z: Cell embeddings, ``[N, D]``.
            batch: Where the cells are.
            hidden_cells: Cells to hide from their niche, ``[N]``.
            hidden_niches: Niches to hide from their region, ``[M]``.
        """
        given = self._places(batch)
        return self._in_context(
            z,
            given.pop("niche_image"),
            given.pop("tissue_image"),
            hidden_cells=hidden_cells,
            hidden_niches=hidden_niches,
            **given,
        )

    def _in_context(
        self, z: Tensor, niche_image: Tensor | None, tissue_image: Tensor | None, **where: Any
    ) -> Embeddings:
        return self.context_encoder(
            z,
            niche_tokens=self.image_tokens(niche_image, self.prepare.niche_um),
            tissue_tokens=self.image_tokens(tissue_image, self.prepare.tissue_um),
            **where,
        )

    def project_modalities(self, streams: CellStreams) -> tuple[Tensor, Tensor]:
        """What genes alone and the image alone say of each cell, in one space, ``[N, D]`` each.

        Raises:
            ValueError: If the model does not read both.
        """
        if (
            self.project_genes is None
            or self.project_image is None
            or streams.gene_tokens is None
            or streams.image_tokens is None
        ):
            raise ValueError("Expected a model and cells with both genes and images")
        genes = self.project_genes(streams.gene_tokens.tokens[:, 0])
        return genes, self.project_image(streams.image_tokens.tokens[:, 0])

    def image_tokens(self, image: Tensor | None, window_um: float) -> Tensor | None:
        """Tokens of crops of niches or regions, ``[M, S, I]``, all patches shown.

        Args:
            image: Crops in ``[0, 1]``, ``[M, C, H, W]``.
            window_um: Side of their window.
        """
        encoder = self.cell_encoder.image
        if image is None or encoder is None:
            return None
        if not isinstance(encoder, MaskedImageEncoder):
            return encoder(image)
        window = image.new_full((len(image),), window_um) if encoder.window is not None else None
        return encoder(image, window, mask_ratio=0.0).tokens

    def cell_inputs(self, batch: Data, visible: Tensor | None = None) -> dict[str, Any]:
        """Arguments of ``cell_encoder`` from a batch, with only ``visible`` genes ``[N, G]`` shown.

        Raises:
            ValueError: If the batch has nothing that the model reads.
        """
        given = super().cell_inputs(batch, visible)
        return {**given, "window_um": batch.get("window_um") if self.reads_window else None}

    @property
    def reads_window(self) -> bool:
        """Whether the image encoder is told how large each crop is."""
        return getattr(self.cell_encoder.image, "window", None) is not None

    def inputs(self, batch: Data, visible: Tensor | None = None) -> dict[str, Any]:
        """Arguments of :meth:`forward` from a batch, with only ``visible`` genes shown.

        Where the batch carries embeddings of its cells (``batch.z``), they are used as they are.
        """
        if batch.get("z") is not None:
            return {**self._places(batch), "x": None, "z": batch.z}
        return {**self._places(batch), **self.cell_inputs(batch, visible)}

    def _places(self, batch: Data) -> dict[str, Any]:
        """The part of :meth:`inputs` that says where cells are, not what they are."""
        keys = ("pos", "edge_index", "niche", "tissue", "niche_index", "niche_pos", "tissue_pos")
        images = {k: batch.get(k) for k in ("niche_image", "tissue_image")}
        return {**{key: batch[key] for key in keys}, **images}
