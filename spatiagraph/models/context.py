"""Cells in context: cell → niche → tissue and back, in a small complete model.

Shape letters: ``N`` cells, ``E`` edges, ``M`` niches, ``R`` tissue regions, ``D`` channels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import torch
from torch import Tensor

from spatiagraph.data.agreement import one_channel_number, one_expression, spot_pitch_um
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import CELL, KNN, Crop, Neighborhoods, Parts, Recipe
from spatiagraph.data.slide import Slide
from spatiagraph.heads.expression import ExpressionHead
from spatiagraph.models.base import HierarchicalModel, sample_of_cells
from spatiagraph.models.context_encoder import ContextEncoder
from spatiagraph.nn.cell import CellEncoder
from spatiagraph.nn.encoding import EdgeEncoding
from spatiagraph.nn.fusion import CrossModalFusion
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.image import ImageEncoder
from spatiagraph.nn.level import Level
from spatiagraph.nn.pool import MeanPool
from spatiagraph.nn.residual import GatedMLP
from spatiagraph.nn.transformer import GraphTransformer

CELL_WINDOW_UM = 13.6
"""Side of the crop around a cell: 64 px of Xenium."""


class ContextModel(HierarchicalModel):
    """Small complete model: cell encoder, context encoder and expression decoders.

    Build it from parts, or with :meth:`for_slides`, which chooses the genes, builds the parts
    and starts them from the principal components of the slides.

    Args:
        recipe: How a slide becomes a graph; saved with the model.
        cell_encoder: Genes and image → ``[N, D]``, such as :class:`~spatiagraph.nn.CellEncoder`.
        context_encoder: Cells → :class:`~spatiagraph.nn.Embeddings`, such as
            :class:`ContextEncoder`, with as many levels as the recipe.
        likelihood: ``"nb"`` for counts, ``"gaussian"`` for values that are normalised already.

    Raises:
        ValueError: If the likelihood is unknown.
    """

    cell_encoder: CellEncoder
    name = "context"
    num_steps = 200
    lr = 1e-2
    weight_decay = 2.0

    def __init__(
        self,
        recipe: Recipe,
        cell_encoder: CellEncoder,
        context_encoder: ContextEncoder,
        *,
        likelihood: Literal["nb", "gaussian"] = "nb",
    ):
        super().__init__()
        if likelihood not in ("nb", "gaussian"):
            raise ValueError(f"Expected 'likelihood' nb or gaussian, got {likelihood!r}")
        self.recipe = recipe
        self.likelihood = likelihood
        self.cell_encoder = cell_encoder
        self.context_encoder = context_encoder
        channels, num_genes = context_encoder.channels, len(recipe.panel)
        self.head = ExpressionHead(channels, num_genes)
        self.niche_head = ExpressionHead(channels, num_genes)
        self.register_buffer("gene_share", torch.zeros(num_genes))

    @classmethod
    def for_slides(
        cls,
        slides: Sequence[Slide],
        recipe: Recipe | None = None,
        *,
        channels: int = 32,
        num_layers: int = 1,
        heads: int = 4,
        image: str | None = "auto",
        num_genes: int | None = 1000,
        fixed_basis: bool = True,
        seed: int = 0,
    ) -> Self:
        """A model that fits the slides: their genes, their image channels, their components.

        Args:
            slides: The slides to be trained on.
            recipe: How a slide becomes a graph; :func:`default_recipe` when not given.
            channels: Size of every embedding, :math:`D`.
            num_layers: Layers of the graph transformer.
            heads: Attention heads.
            image: timm model of the crops; ``"auto"`` is a small ViT where every slide has an
                image, and none elsewhere; ``None`` reads genes alone.
            num_genes: Most variable genes to read, of the default recipe; all of them when
                ``None``.
            fixed_basis: Keep the components that genes start from as they are; ``False`` trains
                them too, which gains on thousands of cells and costs on hundreds of spots.
            seed: Seed of the starting weights.

        Raises:
            ValueError: If the slides do not go together, or an image is requested that none has.
        """
        counts = one_expression(slides) == "counts"
        use_image = _use_image(slides, recipe, image)
        if recipe is None:
            recipe = default_recipe(slides, num_genes=num_genes, image=use_image)
        elif not use_image:
            recipe = replace(recipe, crops=tuple(c for c in recipe.crops if c.of != CELL))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            genes = GeneEncoder(
                len(recipe.panel),
                channels,
                hidden_channels=0,
                normalize_depth=counts,
                fixed_basis=fixed_basis,
            )
            encoder = fusion = None
            crop = recipe.crop()
            if use_image and crop is not None:
                bands = one_channel_number(slides)
                encoder = _image_encoder(str(image), channels, bands, crop.size_px)
                fusion = CrossModalFusion(channels, heads=heads)
            edge_encoding = EdgeEncoding(8)
            edge_dim = edge_encoding.out_channels
            context = ContextEncoder(
                channels,
                # its gate starts at zero: a layer that did so as well would learn nothing
                conv=GraphTransformer(
                    channels, num_layers, heads, edge_dim=edge_dim, init_scale=0.1
                ),
                edge_encoding=edge_encoding,
                # averaged components find domains better than what predicts genes best
                change=GatedMLP(channels),
                pool_context=False,
                # a learned query told donors apart, and nothing of genes
                levels=[Level(channels, pool=MeanPool()) for _ in recipe.levels],
            )
            model = cls(
                recipe,
                CellEncoder(genes, encoder, fusion),
                context,
                likelihood="nb" if counts else "gaussian",
            )
        model.initialize(slides, seed=seed)
        return model

    @classmethod
    def from_options(  # type: ignore[override]
        cls,
        slides: Sequence[Slide],
        *,
        channels: int = 32,
        num_genes: int | None = 1000,
        window_um: float | None = None,
        num_neighbors: int = 8,
        niche_size: int = 15,
        seed: int = 0,
    ) -> Self:
        """Model that fits some slides, by the options of the command line.

        Args:
            slides: The slides to be trained on; of a cohort, its recipe says all but the channels.
            channels: Size of every embedding, :math:`D`.
            num_genes: Most variable genes to read; all of them when ``None``.
            window_um: Side of the crop around a cell.
            num_neighbors: Neighbours of a cell in the graph.
            niche_size: A niche is a cell and this many nearest others.
            seed: Seed of the starting weights.
        """
        from spatiagraph.data.cohort import (
            Cohort,  # takes AnnData along, which a model does without
        )

        if isinstance(slides, Cohort):
            return cls.for_slides(slides, slides.recipe, channels=channels, seed=seed)
        rules: dict[str, Any] = {
            "graph": KNN(num_neighbors),
            "levels": (Neighborhoods(niche_size), Parts(256)),
        }
        image = all(slide.image is not None for slide in slides)
        if image and window_um is not None:
            rules["crops"] = (Crop(window_um, 32),)
        recipe = default_recipe(slides, num_genes=num_genes, image=image, **rules)
        return cls.for_slides(slides, recipe, channels=channels, seed=seed)

    def initialize(
        self,
        slides: Sequence[Slide],
        *,
        rows: Sequence[Tensor] | None = None,
        max_cells: int = 20_000,
        seed: int = 0,
    ) -> None:
        """Start genes from principal components, and decoders from a regression on them.

        Args:
            slides: Where the components come from.
            rows: Cells of each to look at, ``[N]`` bool; all of them when not given.
            max_cells: Cells drawn from each slide at most.
            seed: Seed of the draw.
        """
        sample = sample_of_cells(self.panel, slides, max_cells, seed, rows)
        genes = self.cell_encoder.genes
        if genes is not None:
            genes.initialize(*sample, seed=seed)
        self.start_decoder(self.head, genes, sample, seed)
        self.niche_head.load_state_dict(self.head.state_dict())  # a niche is the mean of its cells
        self.note_start(slides, max_cells=max_cells, seed=seed)

    def expression_head(self) -> ExpressionHead:
        """Head that decodes counts from embeddings of cells.

        Raises:
            ValueError: If it is a model of values.
        """
        return super().expression_head() if self.likelihood == "gaussian" else self.head

    @property
    def anchored(self) -> Sequence[Tensor]:
        return self.head.linear.weight, self.niche_head.linear.weight

    @classmethod
    def upgrade_config(cls, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arguments of version 0.1.0 as those of today."""
        return {("recipe" if key == "prepare" else key): value for key, value in config.items()}


def default_recipe(
    slides: Iterable[Slide],
    *,
    num_genes: int | None = 1000,
    image: bool | Literal["auto"] = True,
    **rules: Any,
) -> Recipe:
    """Recipe that fits the slides: variable genes, 8 neighbours, 16 cells a niche, crops.

    Args:
        slides: The slides to be trained on; an iterator is asked for one at a time.
        num_genes: Most variable genes; all of them when ``None``.
        image: Whether to crop around cells: 13.6 µm, and the distance between spots for spots.
            ``"auto"`` does where every slide has an image.
        **rules: Arguments of :class:`~spatiagraph.data.Recipe` that are to differ.
    """
    pitches_um: list[float] = []
    with_image: list[bool] = []

    def looked_at() -> Iterator[Slide]:
        for slide in slides:
            pitches_um.append(spot_pitch_um([slide]) or 0.0)
            with_image.append(slide.image is not None)
            yield slide
            del slide  # before the next is read

    panel = GenePanel.from_slides(looked_at(), num_genes=num_genes)
    if (all(with_image) if image == "auto" else image) and "crops" not in rules:
        rules["crops"] = (Crop(max(pitches_um) or CELL_WINDOW_UM, 32),)
    return Recipe(panel, **rules)


def _use_image(slides: Sequence[Slide], recipe: Recipe | None, image: str | None) -> bool:
    with_image = [slide.image is not None for slide in slides]
    wanted = image is not None and (recipe is None or recipe.crop() is not None)
    use = wanted and (all(with_image) if image == "auto" else True)
    if use and not any(with_image):
        raise ValueError("Expected an image with the slides, got none: pass image=None")
    return use


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
