"""SPATIA: cells, niches and tissue from genes, images and positions, composed from the blocks.

Shape letters: ``N`` cells, ``M`` niches, ``G`` genes, ``L`` gene tokens, ``K`` labels, ``D``
channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from spatiagraph.data.agreement import one_channel_number, one_expression, spot_pitch_um
from spatiagraph.data.labels import LabelSet
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import KNN, Crop, Grid, InGroups, Neighborhoods, Recipe
from spatiagraph.data.slide import Slide
from spatiagraph.heads.expression import ExpressionHead
from spatiagraph.models.base import HierarchicalModel, sample_of_cells
from spatiagraph.models.context_encoder import ContextEncoder
from spatiagraph.models.spatia.build import spatia_parts, spatia_recipe
from spatiagraph.models.spatia.heads import SpatiaHeads
from spatiagraph.models.spatia.saved import from_flags
from spatiagraph.models.spatia.size import SIZES, SpatiaSize
from spatiagraph.nn.binned_genes import BinnedGeneEncoder
from spatiagraph.nn.masked_image import MaskedImageEncoder
from spatiagraph.nn.renaming import renamed
from spatiagraph.nn.start import ProfileStart
from spatiagraph.nn.token_cell import CellStreams, TokenCellEncoder

TISSUE_UM = 217.6
"""Side of a tissue region: 1024 px of Xenium."""

_LARGE = 128  # channels from which on the published learning rate is that of a model


class Spatia(HierarchicalModel):
    r"""Multi-scale representation of cells, niches and tissue, after SPATIA.

    - *Cell*: gene tokens and image tokens, fused by cross-attention in both directions
      (:class:`~spatiagraph.nn.TokenCellEncoder`).
    - *Niche*: its cells attend to each other, knowing where in the niche they lie, and are pooled
      by a learned query, which may look at the image of the niche as well.
    - *Tissue*: the niches of a region do the same, one level up.
    - *Back*: :math:`\mathbf{z}_i = \mathbf{z}^{cell}_i + \boldsymbol\gamma_n \mathbf{W}_n
      \mathbf{z}^{niche} + \boldsymbol\gamma_t \mathbf{W}_t \mathbf{z}^{tissue}` through gates that
      start at zero, so that context never replaces the cell unasked. A gated MLP of the cell joins
      them where the model has a start: niches are pooled without it, and stay where they start.

    Follows `"SPATIA: Multimodal Generation and Prediction of Spatial Cell Phenotypes"
    <https://arxiv.org/abs/2507.04704>`_. :func:`~spatiagraph.models.spatia.spatia_parts` builds
    the parts in a size; :meth:`for_slides` chooses what depends on the slides as well.

    Args:
        recipe: How a slide becomes a graph; saved with the model.
        cell_encoder: Tokens of genes and image → ``[N, D]``:
            :class:`~spatiagraph.nn.TokenCellEncoder`, or a start around it.
        context_encoder: Cells → :class:`~spatiagraph.nn.Embeddings`.
        heads: Decoders of embeddings and tokens.
        likelihood: ``"zinb"`` for counts, ``"gaussian"`` for values that are normalised already.

    Shapes:
        As :class:`~spatiagraph.models.base.HierarchicalModel`.

    Raises:
        ValueError: If the likelihood is unknown.
    """

    cell_encoder: TokenCellEncoder | ProfileStart
    name = "spatia"
    tile_size = 512
    least_tile = 128
    weight_decay = 0.1

    def __init__(
        self,
        recipe: Recipe,
        cell_encoder: TokenCellEncoder | ProfileStart,
        context_encoder: ContextEncoder,
        heads: SpatiaHeads,
        *,
        likelihood: Literal["zinb", "gaussian"] = "zinb",
    ):
        super().__init__()
        if likelihood not in ("zinb", "gaussian"):
            raise ValueError(f"Expected 'likelihood' zinb or gaussian, got {likelihood!r}")
        self.lr = 1e-2 if context_encoder.channels < _LARGE else 1e-4  # published, of base
        self.recipe = recipe
        self.cell_encoder = cell_encoder
        self.context_encoder = context_encoder
        self.heads = heads
        self.likelihood = likelihood
        self.register_buffer("gene_share", torch.zeros(len(recipe.panel)))

    @property
    def labels(self) -> LabelSet | None:
        """Labels that have a token each."""
        return self.recipe.labels

    @property
    def head(self) -> ExpressionHead:
        """Expression head of cell embeddings."""
        return self.heads.head

    @property
    def num_parameters(self) -> int:
        """Numbers that the model is made of, trained or not."""
        return sum(p.numel() for p in self.parameters())

    def extra_repr(self) -> str:
        return f"{self.num_parameters:,} parameters"

    @classmethod
    def for_slides(
        cls,
        slides: Sequence[Slide],
        size: SpatiaSize | str = "tiny",
        *,
        recipe: Recipe | None = None,
        labels: Sequence[str] | None = None,
        num_genes: int | None = 1000,
        seed: int = 0,
        **options: Any,
    ) -> Self:
        """A model that fits the slides: genes, image channels, niches, principal components.

        Spots of a capture array stand for several cells each: the window is then the distance
        between spots, and a niche the spots around each, unless a recipe says otherwise.

        Args:
            slides: The slides to be trained on.
            size: Size of the model, ``"tiny"``, ``"small"``, ``"base"`` or one's own.
            recipe: How a slide becomes a graph; :meth:`default_recipe` when not given.
            labels: ``obs`` columns to learn to classify.
            num_genes: Most variable genes to read, of the default recipe; all of them when
                ``None``.
            seed: Seed of the starting weights.
            **options: Parts and options of :func:`~spatiagraph.models.spatia.spatia_parts`.

        Raises:
            ValueError: If slides differ in expression or image channels, or an argument is wrong.
        """
        slides = slides if isinstance(slides, Sequence) else list(slides)
        if isinstance(size, str):
            if size not in SIZES:
                raise ValueError(f"Expected 'size' {', '.join(SIZES)}, got {size!r}")
            size = SIZES[size]
        options.setdefault(
            "likelihood", "zinb" if one_expression(slides) == "counts" else "gaussian"
        )
        if recipe is None:
            recipe = cls.default_recipe(slides, size_px=size.size_px, num_genes=num_genes)
        if labels:
            recipe = replace(recipe, labels=LabelSet.from_slides(slides, list(labels)))
        if recipe.crop() is not None:
            options.setdefault("image_channels", one_channel_number(slides))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts = spatia_parts(recipe, size, **options)
            model = cls(*parts, likelihood=options["likelihood"])
        model.initialize(slides, seed=seed)
        return model

    @classmethod
    def from_options(  # type: ignore[override]
        cls,
        slides: Sequence[Slide],
        *,
        preset: Literal["tiny", "small", "base"] = "tiny",
        channels: int | None = None,
        num_genes: int | None = 1000,
        window_um: float | None = None,
        niche_um: float | None = None,
        labels: Sequence[str] | None = None,
        seed: int = 0,
    ) -> Self:
        """Model that fits some slides, by the options of the command line.

        Args:
            slides: The slides to be trained on.
            preset: Size of the model.
            channels: Size of every embedding, :math:`D`; that of the size when ``None``.
            num_genes: Most variable genes to read; all of them when ``None``.
            window_um: Side of the crop around a cell.
            niche_um: Side of a niche.
            labels: ``obs`` columns to learn to classify.
            seed: Seed of the starting weights.
        """
        if preset not in SIZES:
            raise ValueError(f"Expected 'preset' {', '.join(SIZES)}, got {preset!r}")
        size = SIZES[preset]
        size = size if channels is None else replace(size, channels=channels)
        rules: dict[str, Any] = {}
        if niche_um is not None:
            rules.update(graph=InGroups(), levels=(Grid(niche_um), Grid(TISSUE_UM)))
        if window_um is not None and any(slide.image is not None for slide in slides):
            rules["crops"] = (Crop(window_um, size.size_px),)
        recipe = cls.default_recipe(slides, size_px=size.size_px, num_genes=num_genes, **rules)
        return cls.for_slides(slides, size, recipe=recipe, labels=labels, seed=seed)

    @staticmethod
    def default_recipe(
        slides: Sequence[Slide], *, size_px: int = 32, num_genes: int | None = 1000, **rules: Any
    ) -> Recipe:
        """Recipe that fits the slides: the published squares, or neighbourhoods of spots.

        Args:
            slides: The slides to be trained on.
            size_px: Side of the crops in pixels.
            num_genes: Most variable genes; all of them when ``None``.
            **rules: Arguments of :class:`~spatiagraph.data.Recipe` that are to differ.
        """
        panel = GenePanel.from_slides(slides, num_genes=num_genes)
        image = any(slide.image is not None for slide in slides)
        pitch_um = spot_pitch_um(slides)
        if pitch_um is not None:
            spots: dict[str, Any] = {
                "graph": KNN(8),
                "levels": (Neighborhoods(8), Grid(8 * pitch_um)),
                "crops": (Crop(pitch_um, size_px),) if image else (),
            }
            rules = {**spots, **rules}
        return spatia_recipe(panel, size_px=size_px, image=image, **rules)

    def initialize(
        self,
        slides: Sequence[Slide],
        *,
        rows: Sequence[Tensor] | None = None,
        max_cells: int = 20_000,
        seed: int = 0,
    ) -> None:
        """Start the profile from principal components, and the decoder from a regression on them.

        Args:
            slides: Where the components come from.
            rows: Cells of each to look at, ``[N]`` bool; all of them when not given.
            max_cells: Cells drawn from each slide at most.
            seed: Seed of the draw.
        """
        sample = sample_of_cells(self.panel, slides, max_cells, seed, rows)
        start, profile = self.cell_encoder, None
        if isinstance(start.genes, BinnedGeneEncoder):
            each = [
                sample_of_cells(
                    self.panel, [slide], max_cells, seed, None if rows is None else [rows[i]]
                )
                for i, slide in enumerate(slides)
            ]
            start.genes.set_gene_scale((values, seen) for values, seen, _ in each)
        if isinstance(start, ProfileStart):
            profile = start.profile
            if profile is not None:
                profile.initialize(*sample, seed=seed)
            if (
                start.image_profile is not None
                and (crops := self.sample_crops(slides, rows=rows, seed=seed)).numel()
            ):
                start.image_profile.initialize(crops)
        self.start_decoder(self.head, profile, sample, seed)
        self.note_start(slides, max_cells=max_cells, seed=seed)

    def target(self, x: Tensor) -> Tensor:
        """Values as the decoder predicts them, those that components are of, ``[N, G]``."""
        start = self.cell_encoder
        profile = start.profile if isinstance(start, ProfileStart) else None
        return x if profile is None else profile.normalize(x)

    @property
    def anchored(self) -> Sequence[Tensor]:
        return (self.head.linear.weight,)

    def project_modalities(self, streams: CellStreams) -> tuple[Tensor, Tensor]:
        """Genes and image of each cell, encoded without each other, in one space, ``[N, D]`` each.

        Raises:
            ValueError: If the model does not read both.
        """
        heads = self.heads
        if (
            heads.project_genes is None
            or heads.project_image is None
            or streams.gene_tokens is None
            or streams.image_tokens is None
        ):
            raise ValueError("Expected a model and cells with both genes and images")
        genes = heads.project_genes(streams.gene_tokens.tokens[:, 0])
        return genes, heads.project_image(streams.image_tokens.tokens[:, 0])

    def image_tokens(self, image: Tensor | None, level: str) -> Tensor | None:
        """Tokens of crops of the groups of a level, ``[M, S, I]``, all patches shown.

        Args:
            image: Crops in ``[0, 1]``, ``[M, C, H, W]``.
            level: Name of the level.
        """
        encoder = self.cell_encoder.image
        if image is None or encoder is None:
            return None
        if not isinstance(encoder, MaskedImageEncoder):
            return encoder.image_tokens(image).tokens[:, 1:]
        window = None
        if encoder.window is not None:
            crop = self.recipe.crop(level)
            assert crop is not None  # there is an image
            assert crop.window_um is not None  # of a level, not of cells
            window = image.new_full((len(image),), crop.window_um)
        return encoder(image, window, mask_ratio=0.0).tokens

    def expression_head(self) -> ExpressionHead:
        """Head that decodes counts from embeddings of cells.

        Raises:
            ValueError: If it is a model of values.
        """
        return super().expression_head() if self.likelihood == "gaussian" else self.head

    @classmethod
    def upgrade_config(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Flags of version 0.1.0 as parts."""
        return from_flags(config) if "panel" in config else config

    @classmethod
    def upgrade_weights(cls, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights by the names of today, from those of version 0.1.0."""
        tensors = super().upgrade_weights(tensors)
        names = {name: f"heads.{name}" for name in _HEADS}
        if "cell_encoder.gate" in tensors and not any(".encoder." in key for key in tensors):
            inside = ("genes.", "image.", "fusion.", "project.")
            names |= {f"cell_encoder.{part}": f"cell_encoder.encoder.{part}" for part in inside}
        return renamed(tensors, names)


_HEADS = (
    "image_decoder.", "token_head.", "head.", "niche_head.", "project_genes.", "project_image.",
    "classifiers.",
)  # fmt: skip
