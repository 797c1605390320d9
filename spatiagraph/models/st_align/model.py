"""ST-Align: spots and their niches, images and genes, in one space; composed from the blocks.

Shape letters: ``N`` spots of a batch, ``C`` core spots, ``M`` niches, ``G`` genes, ``P`` size of
what is compared.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils.data import DataLoader
from torch_geometric.data import Data

from spatiagraph.data.agreement import one_channel_number, one_expression
from spatiagraph.data.convert import TissueData
from spatiagraph.data.convert.counts import as_scipy
from spatiagraph.data.loader import Prepared, StrataLoader, whole_slides
from spatiagraph.data.recipe import Recipe
from spatiagraph.data.slide import Slide
from spatiagraph.models.base import SlideModel, cell_graph, gene_mask, random_cells, sample_of_cells
from spatiagraph.models.st_align.build import as_size, feature_width, recipe_for, st_align_parts
from spatiagraph.models.st_align.checks import (
    check_channels,
    check_covered,
    check_features,
    check_views,
    names_of,
    with_counts,
)
from spatiagraph.models.st_align.clusters import first_clusters
from spatiagraph.models.st_align.profiles import (
    FEATURES,
    NICHE_IMAGE,
    crops_of,
    data_of,
    frozen_features,
    image_statistics,
    views_of,
)
from spatiagraph.models.st_align.scale import Alignment, Scale, Views
from spatiagraph.models.st_align.size import STAlignSize
from spatiagraph.nn.abfn import AttentionMaps
from spatiagraph.nn.canonical import CanonicalStart
from spatiagraph.nn.cell_graph import CellGraph, Embeddings, LevelEmbeddings
from spatiagraph.nn.fusion import scatter_present
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.small_image import FrozenImageEncoder


class STAlign(SlideModel):
    """Image and genes of a spot and of its niche, aligned by contrast.

    - *Spot*: a window of one pitch, and the profile of the spot as a frozen network sees it.
    - *Niche*: a window of two pitches, and the mean expression of the spot and its neighbours.
    - At each scale both become tokens that ask each other
      (:class:`~spatiagraph.nn.ABFN`); six heads project image, genes and both to one space.

    Follows `"ST-Align: A Multimodal Foundation Model for Image-Gene Alignment in Spatial
    Transcriptomics" <https://arxiv.org/abs/2411.16793>`_. A cell embedding is the spot and the
    niche side by side, each of length 1. Of a slide without image, or without counts, it is made
    of the other views alone; the six vectors by their names are in ``Embeddings.named``.

    Args:
        recipe: How a slide becomes a graph, with one level of niches; saved with the model.
        spot: Encoders of spots.
        niche: Encoders of niches.
        provider: Counts → profile of a spot, not trained; ``None`` reads the features of the
            recipe.
        expression: ``"counts"``, or ``"normalized"`` for values that are no counts.

    Shapes:
        - **views**: :class:`Views` of the core spots, ``[C, ...]``
        - **graph**: :class:`~spatiagraph.nn.CellGraph`
        - **core**: Spots with views, ``[N]`` bool; others have no embedding (zeros)
        - **output**: :class:`~spatiagraph.nn.Embeddings`

    Raises:
        ValueError: If the recipe has other levels, or there is no profile of spots.
    """

    name = "stalign"
    tile_size = 128
    least_tile = 64
    num_steps = 400
    lr = 5e-4
    weight_decay = 0.04

    def __init__(
        self,
        recipe: Recipe,
        spot: Scale,
        niche: Scale,
        provider: GeneEncoder | None = None,
        *,
        expression: Literal["counts", "normalized"] = "counts",
    ):
        super().__init__()
        if len(recipe.level_names) != 1:
            raise ValueError(f"Expected a recipe with one level, got {recipe.level_names}")
        if (provider is None) == (not recipe.features):
            raise ValueError("Expected a 'provider', or a recipe with features, and not both")
        self.recipe = recipe
        self.spot = spot
        self.niche = niche
        self.provider = None if provider is None else provider.requires_grad_(False)
        self.expression = expression

    @property
    def anchored(self) -> Sequence[Tensor]:
        """Maps that vectors start from."""
        starts = [scale.start for scale in (self.spot, self.niche) if scale.start is not None]
        return [linear.weight for start in starts for linear in start.maps]

    @property
    def modalities(self) -> frozenset[str]:
        """Both genes and images, either of which may be missing."""
        return frozenset(("genes", "image"))

    @classmethod
    def for_slides(
        cls,
        slides: Sequence[Slide],
        size: STAlignSize | str = "tiny",
        *,
        recipe: Recipe | None = None,
        gene_sets: str | None = None,
        num_genes: int | None = 1000,
        features: Sequence[str] = (),
        backbone: FrozenImageEncoder | None = None,
        tokenizer: Literal["linear", "conv1"] = "linear",
        start: Literal["canonical"] | None = "canonical",
        seed: int = 0,
    ) -> Self:
        """A model that fits the slides: their genes, pitch, images and components.

        Args:
            slides: The slides to be trained on; what is fitted to counts leaves out those that
                were only photographed.
            size: Widths and depths, or ``"tiny"`` or ``"base"``.
            recipe: How a slide becomes a graph; that of :func:`recipe_for` when not given.
            gene_sets: GMT file whose genes are read, such as the hallmark sets.
            num_genes: Most variable genes to read where there are no sets; all when ``None``.
            features: Slots of ``obsm`` with profiles of spots, in place of principal components.
            backbone: Frozen encoder of the images of niches.
            tokenizer: ``"linear"``, or ``"conv1"`` as published.
            start: Begin with canonical correlations of colours and genes
                (:class:`~spatiagraph.nn.CanonicalStart`) where slides have both; ``None`` for
                random heads alone, as published.
            seed: Seed of the starting weights.

        Raises:
            ValueError: If the slides do not go together, measure too few of the genes, or none of
                them has counts.
        """
        slides, size = list(slides), as_size(size)
        sequenced = with_counts(slides)
        expression: Any = one_expression(slides)
        if recipe is None:
            genes = num_genes if gene_sets is None else gene_sets
            recipe = recipe_for(slides, size, genes=genes, features=features)
        has_image = any(slide.image is not None for slide in slides)
        has_both = None not in crops_of(recipe) and any(s.image is not None for s in sequenced)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts = st_align_parts(
                recipe,
                size,
                feature_channels=feature_width(recipe, sequenced),
                backbone=backbone,
                image_channels=one_channel_number(slides) if has_image else 3,
                tokenizer=tokenizer,
                start=start if has_both else None,
                normalize_depth=expression == "counts",
            )
            model = cls(*parts, expression=expression)
        model.initialize(slides, seed=seed)
        return model

    def initialize(
        self,
        slides: Sequence[Slide],
        *,
        rows: Sequence[Tensor] | None = None,
        max_cells: int = 20_000,
        seed: int = 0,
    ) -> None:
        """Start profiles from principal components, and vectors from canonical correlations.

        Args:
            slides: Where components and correlations come from: slides with counts, and for the
                latter those of them with an image.
            rows: Spots of each to look at, ``[N]`` bool; all of them when not given.
            max_cells: Spots drawn from each slide, at most.
            seed: Seed of the draw.

        Raises:
            ValueError: If no slide has counts, or none has both where the model starts from both.
        """
        sequenced = with_counts(slides)
        if rows is not None:
            rows = [row for row, slide in zip(rows, slides, strict=True) if slide.is_counted]
        if self.provider is not None:
            sample = sample_of_cells(self.panel, sequenced, max_cells, seed, rows)
            self.provider.initialize(*sample, seed=seed)
        if self.spot.start is not None and self.niche.start is not None:
            self._start_maps(self.spot.start, self.niche.start, sequenced, rows, max_cells, seed)
        self.note_start(slides, max_cells=max_cells, seed=seed)

    def _start_maps(
        self,
        spot: CanonicalStart,
        niche: CanonicalStart,
        slides: Sequence[Slide],
        rows: Sequence[Tensor] | None,
        max_cells: int,
        seed: int,
    ) -> None:
        """Set the maps that vectors start from, by slides with counts that have images."""
        found, measured = [], []
        for i, slide in enumerate(slides):
            if slide.image is None:
                continue
            data = self._views(slide)
            data.drop(*data.crop_sources)  # no network looks at pixels
            allowed = None if rows is None else rows[i]
            data.core = torch.zeros(slide.num_cells, dtype=torch.bool)
            data.core[random_cells(slide.num_cells, max_cells, seed, allowed)] = True
            for batch in super().batches([data]):
                found.append(self.inputs(batch)[0])
                measured.append(gene_mask(batch)[batch.core])
        if not found:
            raise ValueError(
                "Expected a slide with counts that has an image to start from, got "
                f"{names_of(slides)} without. Build the model with start=None"
            )

        def view(name: str) -> Tensor:
            return torch.cat([getattr(views, name) for views in found])

        known, genes = torch.cat(measured), view("niche_genes")
        mean = torch.where(known, genes, 0.0).sum(0) / known.sum(0).clamp(min=1)
        spot.initialize(view("spot_statistics"), view("spot_genes"))
        niche.initialize(view("niche_statistics"), torch.where(known, genes, mean))

    @classmethod
    def from_options(  # type: ignore[override]
        cls,
        slides: Sequence[Slide],
        *,
        preset: Literal["tiny", "base"] = "tiny",
        num_genes: int | None = 1000,
        gene_sets: str | None = None,
        seed: int = 0,
    ) -> Self:
        """Model that fits some slides, by the options of the command line.

        Args:
            slides: The slides to be trained on.
            preset: Size of the model.
            num_genes: Most variable genes to read; all of them when ``None``.
            gene_sets: GMT file whose genes are read.
            seed: Seed of the starting weights.
        """
        return cls.for_slides(slides, preset, num_genes=num_genes, gene_sets=gene_sets, seed=seed)

    def prepare(
        self, slide: Slide, *, device: str | torch.device = "cpu", learn: bool = False
    ) -> TissueData:
        """A slide as the recipe makes it, with frozen features of its niches and first clusters.

        Args:
            slide: The slide.
            device: Where frozen parts run.
            learn: Add the clusters that negatives are drawn from.

        Raises:
            ValueError: If the slide does not fit the recipe, its image has other channels than
                those of training, or it is to be learned from and lacks an image or counts.
        """
        if learn:
            check_views(slide)
        if self.recipe.crops:
            check_channels(slide, (self.spot.image.encoder, self.niche.image.encoder))
        data, encoder = self._views(slide), self.niche.image.encoder
        source = data.crop_sources.get(NICHE_IMAGE)
        if source is not None and isinstance(encoder, FrozenImageEncoder) and encoder.is_frozen:
            found = frozen_features(encoder, source, self.cache, device=device)
            data.put("cell", **{FEATURES: found})
            data.drop(NICHE_IMAGE, f"{NICHE_IMAGE}_padded")
        if learn:
            counts = as_scipy(data.x)
            data.put("cell", cluster=first_clusters(counts, expression=self.expression))
        return data

    def _views(self, slide: Slide) -> TissueData:
        """A slide as the recipe makes it, with what a start reads of its images."""
        if self.recipe.crops:
            check_covered(slide)
        check_features(self.recipe, slide, self.spot.profile_channels)
        data = data_of(self.recipe, slide)
        if self.spot.start is not None:
            data.put("cell", **image_statistics(self.recipe, slide, self.cache))
        return data

    def batches(
        self,
        slides: Prepared,
        tile_size: int | None = None,
        *,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ) -> DataLoader[TissueData]:
        """Mini-batches as of any model; of slides with clusters, some of each from all over."""
        slides = whole_slides(slides, type(self).__name__)
        options: dict[str, Any] = {"shuffle": shuffle, "seed": seed, "num_workers": num_workers}
        if not all("cluster" in data for data in slides):
            return super().batches(slides, tile_size, **options)
        size = self.tile_size if tile_size is None else tile_size
        parts = max(1, min(4, size // 24))  # each has two spots and more of every cluster
        return StrataLoader(slides, size, num_parts=parts, **options)

    def inputs(self, batch: Data) -> tuple[Views, CellGraph, Tensor]:
        """Views of the core spots of a batch, its graph, and which spots these are."""
        graph = cell_graph(batch, self.recipe.level_names)
        views = views_of(
            batch, graph.levels[0], self.recipe.features, self.provider, self.expression
        )
        if self.niche.start is not None and views.niche_genes is not None:  # 0 would be a value
            known = gene_mask(batch)[batch.core]
            mean = self.niche.start.gene_mean
            views = views._replace(niche_genes=torch.where(known, views.niche_genes, mean))
        return views, graph, batch.core

    def align(self, views: Views) -> Alignment:
        """The six vectors of some spots; ``None`` for those whose views are missing.

        Args:
            views: Views of the spots.
        """
        spot_img, spot_gene, spot = self.spot(*views[:2], views.spot_statistics)
        niche_img, niche_gene, niche = self.niche(*views[2:4], views.niche_statistics)
        return Alignment(spot_img, spot_gene, niche_img, niche_gene, spot, niche)

    def attention(self, views: Views) -> tuple[AttentionMaps, AttentionMaps]:
        """Attention between image and genes of spots, and of niches.

        Args:
            views: All four views of some spots.

        Raises:
            ValueError: If one is missing.
        """
        spot_image, spot_genes, niche_image, niche_genes = views[:4]
        if spot_image is None or spot_genes is None or niche_image is None or niche_genes is None:
            raise ValueError("Expected images and genes of spots and niches, a view is missing")
        return self.spot.maps(spot_image, spot_genes), self.niche.maps(niche_image, niche_genes)

    def forward(self, views: Views, graph: CellGraph, core: Tensor) -> Embeddings:
        out = self.align(views)
        spot, niche = out.best
        (level,) = graph.levels
        own = level.own[core]
        h = niche.new_zeros(len(level.pos), niche.size(1)).index_copy(0, own, niche)
        both = torch.cat([normalize(spot, dim=1), normalize(niche, dim=1)], 1)
        named = {
            name: scatter_present(value, core)
            for name, value in out._asdict().items()
            if value is not None and name != "niche"
        }
        return Embeddings(
            scatter_present(both, core),
            (LevelEmbeddings(h, level.own, h, level.members),),
            named=named,
        )
