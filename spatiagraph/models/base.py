"""``SlideModel``: the contract between a model and ``fit``, ``embed`` and the command line."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch_geometric.data import Data

from spatiagraph._savable import extension
from spatiagraph.data.convert import TissueData
from spatiagraph.data.feature_cache import FeatureCache
from spatiagraph.data.loader import Prepared, TileLoader
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import Recipe
from spatiagraph.data.slide import Slide
from spatiagraph.heads.expression import ExpressionHead
from spatiagraph.heads.regression import ridge
from spatiagraph.nn.cell_graph import CellGraph, Cells, Embeddings, Hidden, LevelGraph
from spatiagraph.nn.genes import GeneEncoder
from spatiagraph.nn.hub import PretrainedModel
from spatiagraph.nn.protocols import CellEncoding
from spatiagraph.nn.renaming import renamed
from spatiagraph.nn.weights import weights_hash

if TYPE_CHECKING:
    from spatiagraph.tasks.base import Task

DECAY = 20.0
"""Weight decay for each unit of strength of the ridge regression that decoders start from."""


class SlideNotes(NamedTuple):
    """Notes of a model on a slide beside embeddings.

    Attributes:
        obs: Name → value of each cell, ``[N]``: ``obs["{model}_{name}"]``.
        obsm: Name → values of each cell, ``[N, D]``: ``obsm["X_{model}_{name}"]``.
        uns: Plain values: ``uns["spatiagraph"]["{model}"]``.
    """

    obs: Mapping[str, NDArray[np.generic]] = {}
    obsm: Mapping[str, NDArray[np.generic]] = {}
    uns: Mapping[str, Any] = {}


class Start(NamedTuple):
    """Start of a model: what its closed forms were fitted to.

    Attributes:
        slide_ids: Names of the slides.
        options: Arguments of :meth:`SlideModel.initialize`.
        weights: Hash of the weights then: other weights have been trained since.
    """

    slide_ids: tuple[str, ...]
    options: Mapping[str, Any]
    weights: str


class SlideModel(PretrainedModel, abstract=True):
    """Model of slides that ``fit``, ``embed`` and the command line can work with.

    A sub-class says what it is: its ``name`` and ``recipe``, how a batch becomes arguments of
    ``forward`` (:meth:`inputs`), and where needed how slides become batches (:meth:`batches`) and
    what it learns (:meth:`task`). Being defined makes it known by name: nothing else is to be
    touched.

    Attributes:
        name: Short name: embeddings land in ``obsm["X_{name}"]``, ``obsm["X_{name}_{level}"]``.
        recipe: How a slide becomes a graph; saved with the model.
        tile_size: Core cells of a mini-batch that a laptop can train on.
        least_tile: Core cells below which a mini-batch is not cut smaller, however small the slide.
        num_steps: Steps of the optimiser that train the model, where a run says nothing else.
        lr: Peak learning rate, likewise.
        weight_decay: Decoupled weight decay of matrices, likewise; a model may choose its own.
        num_hops: Hops over the cell graph that a cell embedding depends on.
        reads_molecules: Whether training reads the molecules of slides.
        start: What :meth:`initialize` was fitted to, until ``fit`` trains the model; ``None`` where
            it was fitted to nothing.
        cache: Folder in which :meth:`prepare` keeps what frozen parts of the model make of a
            slide; ``None`` computes it every time.
        known: Classes by name.
        pretraining: Task that says it ``pretrains`` the class.
    """

    name: ClassVar[str]
    tile_size: ClassVar[int] = 4096
    least_tile: ClassVar[int] = 256
    num_steps: ClassVar[int] = 200
    lr: float = 1e-3
    weight_decay: float = 0.01
    reads_molecules: ClassVar[bool] = False
    known: ClassVar[dict[str, type["SlideModel"]]] = {}
    pretraining: ClassVar[type["Task"] | None] = None
    recipe: Recipe
    num_hops: int = 0
    start: Start | None = None
    cache: FeatureCache | None = None

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            SlideModel.known[cls.name] = extension(cls)

    @property
    def panel(self) -> GenePanel:
        """Genes that the model reads."""
        return self.recipe.panel

    @property
    def modalities(self) -> frozenset[str]:
        """Those of ``"genes"`` and ``"image"`` that the model reads, each of which may be missing.

        Empty for a model that needs all it reads.
        """
        return frozenset()

    @property
    def anchored(self) -> Sequence[Tensor]:
        """Matrices that weight decay pulls towards their start instead of towards zero.

        Such as what a closed form found: none, of most models.
        """
        return ()

    @classmethod
    def from_options(cls, slides: Sequence[Slide], **options: Any) -> Self:
        """Model that fits some slides, by the options of the command line.

        The command line offers a model the options that this method names.

        Args:
            slides: The slides to be trained on.
            **options: Plain values.

        Raises:
            ValueError: If the model cannot be built from slides alone.
        """
        raise ValueError(f"Expected a model that is built from slides, {cls.__name__} is not")

    def initialize(
        self, slides: Sequence[Slide], *, rows: Sequence[Tensor] | None = None, seed: int = 0
    ) -> None:
        """Fit closed forms that training starts from to some slides: none, of most models.

        A model that does so ends with :meth:`note_start`: a run that holds out cells of these
        slides then fits them again, without these cells.

        Args:
            slides: The slides.
            rows: Cells of each to look at, ``[N]`` bool; all of them when not given.
            seed: Seed of what is drawn.
        """

    def note_start(self, slides: Sequence[Slide], **options: Any) -> None:
        """Remember what :meth:`initialize` was fitted to.

        Args:
            slides: The slides.
            **options: Its other arguments, but for the rows.
        """
        names = tuple(slide.slide_id for slide in slides)
        self.start = Start(names, options, weights_hash(self))

    @abstractmethod
    def forward(self, *inputs: Any) -> Embeddings:
        """Embeddings of the cells of a batch and of the levels of the recipe."""

    @property
    def embedder(self) -> nn.Module:
        """Module whose outputs are :class:`~spatiagraph.nn.Embeddings`: what runs watch."""
        return self

    def expression_head(self) -> ExpressionHead:
        """Head that decodes counts from embeddings of cells.

        Raises:
            ValueError: If it is no model of counts.
        """
        raise ValueError(f"Expected a model of counts, got {type(self).__name__} without")

    @abstractmethod
    def inputs(self, batch: Data) -> tuple[Any, ...]:
        """Arguments of ``forward`` from a batch."""

    def prepare(
        self, slide: Slide, *, device: str | torch.device = "cpu", learn: bool = False
    ) -> TissueData:
        """Graph of a slide by the recipe, with the features of frozen parts of the model.

        Args:
            slide: The slide.
            device: Where frozen parts run.
            learn: Add what only training and validation need.

        Raises:
            ValueError: If the slide does not fit the recipe, or was only photographed and genes are
                needed.
        """
        check_counted(self, slide, learn=learn)
        return self.recipe(slide)

    @property
    def prepares_by_recipe(self) -> bool:
        """True if the recipe makes of slides all that the model reads and notes."""
        own = type(self)
        return own.prepare is SlideModel.prepare and own.notes is SlideModel.notes

    def notes(self, data: TissueData) -> SlideNotes:
        """Notes that ``embed`` writes beside embeddings: none, of most models.

        Args:
            data: The slide.
        """
        return SlideNotes()

    def batches(
        self,
        slides: Prepared,
        tile_size: int | None = None,
        *,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ) -> DataLoader[TissueData]:
        """Mini-batches of prepared slides, each with the context that its core cells need.

        Args:
            slides: Whole slides, as the recipe makes them, or their tiles, such as a cohort; cells
                that are not ``core`` are context alone, such as those that a run is validated on.
            tile_size: Core cells of a batch, at most; the model's own when not given.
            shuffle: New order in every epoch, for training.
            seed: Seed of the order.
            num_workers: Worker processes.
        """
        size = self.tile_size if tile_size is None else tile_size
        return TileLoader(
            slides, size, self.num_hops, shuffle=shuffle, seed=seed, num_workers=num_workers
        )

    def task(self, *, seed: int = 0, cached_cells: bool = False) -> "Task":
        """Task of pre-training: the one that was defined with ``pretrains=`` this class.

        Tasks lie right of models, so a model does not import its own:
        :func:`~spatiagraph.tasks.pretraining` looks at all of ours first.

        Args:
            seed: Seed of what the task itself learns.
            cached_cells: Whether cells are encoded once, and only what comes after them learns.

        Raises:
            ValueError: If there is none.
        """
        if self.pretraining is None:
            raise ValueError(f"Expected a 'task' for a {type(self).__name__}, got None")
        return self.pretraining.for_model(self, seed=seed, cached_cells=cached_cells)


class HierarchicalModel(SlideModel, abstract=True):
    """Model of a cell encoder and a context encoder: cells, then the levels above them.

    Attributes:
        cell_encoder: Genes and image of a cell → ``[N, D]``.
        context_encoder: Cells in their graph → :class:`~spatiagraph.nn.Embeddings`.
        gene_share: Buffer: share of each gene in the total counts of a cell, ``[G]``; 0 where that
            is not known.

    Shapes:
        - **cells**: :class:`~spatiagraph.nn.Cells`
        - **graph**: :class:`~spatiagraph.nn.CellGraph`
        - **hidden**: :class:`~spatiagraph.nn.Hidden`, or ``None``
        - **output**: :class:`~spatiagraph.nn.Embeddings`
    """

    cell_encoder: CellEncoding
    context_encoder: Any
    gene_share: Tensor

    @property
    def num_hops(self) -> int:  # type: ignore[override]
        """Hops over the cell graph that a cell embedding depends on."""
        return self.context_encoder.num_hops

    @property
    def modalities(self) -> frozenset[str]:
        """Those of ``"genes"`` and ``"image"`` that the cell encoder reads."""
        parts = {"genes": self.cell_encoder.genes, "image": self.cell_encoder.image}
        return frozenset(name for name, part in parts.items() if part is not None)

    @property
    def embedder(self) -> nn.Module:
        """The context encoder, which cached cells pass through as well."""
        return self.context_encoder

    def forward(self, cells: Cells, graph: CellGraph, hidden: Hidden | None = None) -> Embeddings:
        z = self.encode(cells) if cells.z is None else cells.z
        return self.context(z, graph, hidden)

    def encode(self, cells: Cells) -> Tensor:
        """Cells before any context, ``[N, D]``."""
        return self.cell_encoder(cells)

    def context(self, z: Tensor, graph: CellGraph, hidden: Hidden | None = None) -> Embeddings:
        """Cells that are encoded already, in context.

        Args:
            z: Cell embeddings, ``[N, D]``.
            graph: Where the cells are.
            hidden: Cells and groups to hide from their groups.
        """
        tokens = [
            self.image_tokens(level.image, name)
            for level, name in zip(graph.levels, self.recipe.level_names, strict=False)
        ]
        return self.context_encoder(z, graph, hidden, tokens=tokens)

    def image_tokens(self, image: Tensor | None, level: str) -> Tensor | None:
        """Tokens of crops of the groups of a level, ``[M, S, I]``, for a look at them.

        Args:
            image: Crops in ``[0, 1]``, ``[M, C, H, W]``.
            level: Name of the level.
        """
        return None

    def inputs(self, batch: Data, visible: Tensor | None = None) -> tuple[Cells, CellGraph]:
        """Arguments of ``forward`` from a batch, with only ``visible`` genes ``[N, G]`` shown.

        Where the batch carries embeddings of its cells (``batch.z``), they are used as they are.
        """
        if batch.get("z") is not None:
            return Cells(z=batch.z), self.graph(batch)
        return self.cells(batch, visible), self.graph(batch)

    def cells(self, batch: Data, visible: Tensor | None = None) -> Cells:
        """Measurements of the cells of a batch that the model reads.

        Raises:
            ValueError: If the batch has nothing that the model reads.
        """
        image = batch.get("image") if self.cell_encoder.image is not None else None
        if image is None and self.cell_encoder.genes is None:
            raise ValueError("Expected a slide with an image: the model reads images alone")
        return Cells(
            x=batch.x if self.cell_encoder.genes is not None else None,
            image=image,
            gene_mask=gene_mask(batch) if visible is None else visible,
            depth=self.depth(batch),
            image_mask=None if image is None else batch.image_mask,
            window_um=batch.get("window_um") if self.cell_encoder.reads_window else None,
        )

    @classmethod
    def upgrade_weights(cls, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights by the names of today, from those of version 0.1.0."""
        names = {f"context_encoder.{old}": f"context_encoder.{new}" for old, new in LEVELS}
        tensors = renamed(tensors, names)
        bias = next((v for k, v in tensors.items() if k.endswith("head.linear.bias")), None)
        if "gene_share" not in tensors and bias is not None:  # not known then: nothing is made up
            tensors["gene_share"] = torch.zeros(len(bias), dtype=torch.float32)
        return tensors

    def depth(self, batch: Data) -> Tensor:
        """Total counts of each cell on the scale of the training slides, ``[N]``.

        The total over the genes of a slide that lacks some of the panel's is smaller without the
        cell being so; it is made up for from the genes that were measured and the share of the
        total that they have on average, so that the same cell gets the same embedding.
        """
        measured, expected = gene_mask(batch), self.gene_share
        if batch.get("x") is None or not bool(expected.any()):  # of values, or saved before
            return batch.depth
        seen = (measured * expected).sum(1)
        made_up = (batch.x * measured).sum(1) / seen.clamp(min=1e-12)
        return torch.where(measured.all(1), batch.depth, made_up)

    def learn_gene_share(self, x: Tensor, measured: Tensor, depth: Tensor) -> None:
        """Remember the share of each gene in the total counts.

        Args:
            x: Counts of a sample of cells, ``[N, G]``.
            measured: Measured genes, ``[N, G]``.
            depth: Total counts over all genes of the slide, ``[N]``.
        """
        total = (measured * depth.unsqueeze(1)).sum(0)
        self.gene_share.copy_((x * measured).sum(0) / total.clamp(min=1.0))

    def start_decoder(
        self,
        head: ExpressionHead,
        genes: GeneEncoder | None,
        sample: tuple[Tensor, Tensor, Tensor],
        seed: int,
    ) -> None:
        """Start the decoder from a regression on what genes start from, and set the decay to it.

        Args:
            head: The decoder.
            genes: Components that embeddings start from; ``None`` for the mean profile.
            sample: Counts or values of some cells, what is measured of them, and their depth.
            seed: Seed of the genes that are hidden for the regression.
        """
        x, mask, depth = sample
        z = None if genes is None else start_of_hidden(genes, x, mask, depth, seed)
        if self.likelihood != "gaussian":
            self.learn_gene_share(x, mask, depth)
            head.initialize(x, z, mask)
        elif genes is not None and z is not None:
            values = genes.normalize(x) * mask + genes.mean * ~mask
            found = ridge(z, values)
            head.linear.weight.data.copy_(found.weight)
            head.linear.bias.data.copy_(found.bias)
            head.strength = found.strength
        if head.strength is not None:  # few cells, or noisy ones, are held to the start
            self.weight_decay = DECAY * head.strength

    def graph(self, batch: Data) -> CellGraph:
        """Graph and levels of a batch."""
        return cell_graph(batch, self.recipe.level_names)

    def sample_crops(
        self,
        slides: Sequence[Slide],
        *,
        rows: Sequence[Tensor] | None = None,
        num_cells: int = 1000,
        seed: int = 0,
    ) -> Tensor:
        """Crops of random cells of each slide, ``[n, C, H, W]``.

        Args:
            slides: The slides; those without image give none, as do those of a cohort, which keeps
                crops and not the image.
            rows: Cells of each to draw from, ``[N]`` bool; all of them when not given.
            num_cells: Cells drawn from each, at most.
            seed: Seed of the draw.

        Raises:
            ValueError: If the recipe crops no cells.
        """
        crop = self.recipe.crop()
        if crop is None:
            raise ValueError("Expected a recipe with crops of cells, got none")
        found = []
        for i, slide in enumerate(slides):
            if slide.image is None:
                continue
            drawn = random_cells(
                slide.num_cells, num_cells, seed, None if rows is None else rows[i]
            )
            crops, inside = crop.source(slide, slide.pos).select(drawn).read()
            found.append(crops[inside])
        return torch.cat(found) if found else torch.empty(0)


LEVELS = (
    ("niche_pool.", "levels.0.pool."),
    ("niche_place.", "levels.0.position."),
    ("niche_conv.", "levels.0.conv."),
    ("niche_fusion.", "levels.0.look."),
    ("from_niche.", "levels.0.top_down."),
    ("hidden_niche", "levels.0.hidden"),
    ("tissue_pool.", "levels.1.pool."),
    ("tissue_fusion.", "levels.1.look."),
    ("from_tissue.", "levels.1.top_down."),
)
"""Weights of a context encoder: start of their names in version 0.1.0, and today."""


def check_counted(model: SlideModel, slide: Slide, *, learn: bool = False) -> None:
    """Refuse a slide that was only photographed where a model would take its zeros for counts.

    Args:
        model: The model.
        slide: The slide; one with counts passes.
        learn: Whether it is to be learned from, for which all that a model reads has to be there.

    Raises:
        ValueError: If nothing was counted, and the model cannot do without genes.
    """
    reads = model.modalities
    if slide.is_counted or reads == {"image"}:
        return
    if not learn and "image" in reads and slide.image is not None:
        return
    way = (
        "Leave it out of training" if learn else "Embed it with a model of images, such as STAlign"
    )
    raise ValueError(
        f"Expected counts in slide {slide.slide_id!r}, which the {type(model).__name__} reads, got "
        f"none in all {slide.num_cells} cells. {way}"
    )


def gene_mask(batch: Data) -> Tensor:
    """Measured genes of each cell, ``[N, G]``."""
    mask = batch.gene_mask
    if mask.dim() == 2 and mask.size(0) != batch.num_nodes:
        mask = mask[batch.batch]  # one row per slide → one per cell
    return mask.expand(batch.num_nodes, -1)


def cell_graph(batch: Data, levels: Sequence[str]) -> CellGraph:
    """Graph and levels of a batch as a named tuple.

    Args:
        batch: The batch.
        levels: Names of its levels, from cells upwards.
    """
    groups = [
        LevelGraph(
            batch[name], batch[f"{name}_index"], batch[f"{name}_pos"], batch.get(f"{name}_image")
        )
        for name in levels
    ]
    return CellGraph(batch.pos, batch.edge_index, tuple(groups), batch.get("batch"))


@torch.no_grad()
def start_of_hidden(
    genes: GeneEncoder, x: Tensor, measured: Tensor, depth: Tensor, seed: int
) -> Tensor:
    """Cells from half of their genes, as training shows them, ``[N, D]``.

    A decoder that starts from cells which saw all of them would read each gene from itself.

    Args:
        genes: Encoder of genes, at its start.
        x: Counts, ``[N, G]``.
        measured: Measured genes, ``[N, G]``.
        depth: Total counts, ``[N]``.
        seed: Seed of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    return genes(x, measured & (torch.rand(x.shape, generator=generator) < 0.5), depth)


def sample_of_cells(
    panel: GenePanel,
    slides: Sequence[Slide],
    max_cells: int,
    seed: int,
    rows: Sequence[Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts ``[N, G]``, measured genes ``[N, G]`` and depth ``[N]`` of random cells of each slide.

    Args:
        panel: Genes, in order.
        slides: The slides.
        max_cells: Cells drawn from each slide at most.
        seed: Seed of the draw.
        rows: Cells of each slide to draw from, ``[N]`` bool; all of them when not given.
    """
    parts, masks, depths = [], [], []
    for i, slide in enumerate(slides):
        counts, measured = panel.counts(slide)
        drawn = random_cells(counts.shape[0], max_cells, seed, None if rows is None else rows[i])
        parts.append(torch.from_numpy(counts[drawn.numpy()].toarray()))
        masks.append(torch.as_tensor(measured).expand(drawn.numel(), -1))
        depths.append(torch.as_tensor(slide.depth)[drawn])
    return torch.cat(parts), torch.cat(masks), torch.cat(depths)


def random_cells(num_cells: int, max_cells: int, seed: int, allowed: Tensor | None) -> Tensor:
    """Rows of random cells of a slide, sorted, ``[n]``.

    Args:
        num_cells: Cells of the slide.
        max_cells: Cells to draw, at most.
        seed: Seed of the draw.
        allowed: Cells to draw from, ``[N]`` bool; all of them when ``None``.
    """
    rows = torch.arange(num_cells) if allowed is None else allowed.nonzero().flatten()
    generator = torch.Generator().manual_seed(seed)
    return rows[torch.randperm(len(rows), generator=generator)[:max_cells]].sort().values
