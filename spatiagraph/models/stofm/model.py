"""SToFM: a cell encoder, and an SE(2) transformer on sub-slices with virtual cells."""

import json
from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch_geometric.data import Data

from spatiagraph._config import to_config
from spatiagraph.data.convert import TissueData
from spatiagraph.data.feature_cache import cache_key
from spatiagraph.data.loader import Prepared, whole_slides
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import CELL, Recipe
from spatiagraph.data.slide import Slide
from spatiagraph.data.tokens import read_orthologs
from spatiagraph.data.vocabulary import GeneVocabulary
from spatiagraph.models.base import SlideModel, SlideNotes, check_counted, gene_mask
from spatiagraph.models.stofm.build import cell_parts, context_encoder, kernel_scale
from spatiagraph.models.stofm.heads import SToFMHeads
from spatiagraph.models.stofm.loader import SubSliceLoader
from spatiagraph.models.stofm.size import SIZES, SToFMSize
from spatiagraph.models.stofm.slices import SubSlices, VirtualCells
from spatiagraph.nn.cell_graph import Cells, Embeddings
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.mode import evaluating
from spatiagraph.nn.se2_transformer import Nodes, SE2Transformer

SLICES, VIRTUAL = SubSlices(), VirtualCells()
_CHUNK = 1024  # cells that are encoded between two looks at the slide


class SToFM(SlideModel):
    """Cells in context at three scales: genes, sub-slices, and virtual cells of the whole slide.

    The model of `SToFM <https://arxiv.org/abs/2507.11588>`_. Build it from parts, or with
    :meth:`for_slides`.

    A frozen encoder turns each cell into a unit vector, once per slide (:meth:`prepare`; kept on
    the disk where the model has a ``cache``). Clusters of these are the virtual cells; a sub-slice
    is ``CLS``, all virtual cells and about a thousand cells, and the SE(2) transformer reads it.

    Args:
        recipe: How a slide becomes counts or tokens; saved with the model.
        cell_encoder: Cells → unit vectors ``[N, C]``: :class:`~spatiagraph.nn.RankEncoder`,
            :class:`~spatiagraph.nn.ProfileEncoder` or one's own with ``channels``, called with
            :class:`~spatiagraph.nn.Cells`. It is frozen until a task trains it along.
        encoder: Nodes of sub-slices in context.
        slices: How slides are cut.
        virtual: How virtual cells are made; ``None`` for none.
        heads: What pre-training reads; new ones when not given.
    """

    name = "stofm"
    tile_size = 4096
    num_steps = 300

    def __init__(
        self,
        recipe: Recipe,
        cell_encoder: Configurable,
        encoder: SE2Transformer,
        *,
        slices: SubSlices = SLICES,
        virtual: VirtualCells | None = VIRTUAL,
    ):
        super().__init__()
        self.recipe = recipe
        self.cell_encoder = cell_encoder.requires_grad_(False)
        self.encoder = encoder
        self.slices = slices
        self.virtual = virtual
        self.heads = SToFMHeads(encoder.embed.in_features, encoder.channels, encoder.heads)

    @classmethod
    def for_slides(
        cls,
        slides: Sequence[Slide],
        size: SToFMSize | Literal["tiny", "base"] = "tiny",
        *,
        cells: Literal["profile", "ranks"] = "profile",
        num_genes: int | None = None,
        panel: GenePanel | None = None,
        slices: SubSlices = SLICES,
        virtual: VirtualCells | None = VIRTUAL,
        seed: int = 0,
    ) -> Self:
        """Model of the genes of some slides.

        Args:
            slides: The slides.
            size: Widths and depths, or their name.
            cells: Encoder of cells: ``"profile"``, principal components of these slides, which are
                good as they are; ``"ranks"``, a transformer on ranked genes, which must be trained
                first (:class:`~spatiagraph.tasks.CellAdaptation`) or read from elsewhere.
            num_genes: Most variable genes to read; all when ``None``.
            panel: Genes to read in place of those of the slides, such as a
                :class:`~spatiagraph.data.GeneVocabulary` with orthologues.
            slices: How slides are cut.
            virtual: How virtual cells are made; ``None`` for none.
            seed: Seed of the weights.

        Raises:
            ValueError: If a name is unknown, slides hold no counts to rank, or both a panel and a
                number of genes are given.
        """
        if panel is not None and num_genes is not None:
            raise ValueError("Expected 'num_genes' or 'panel', got both")
        if isinstance(size, str):
            if size not in SIZES:
                raise ValueError(f"Expected 'size' among {', '.join(SIZES)}, got {size!r}")
            size = SIZES[size]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = context_encoder(size)
            nn.init.constant_(encoder.bias.scale, kernel_scale(slides, slices))
            if panel is None:
                panel = GenePanel.from_slides(slides, num_genes=num_genes)
            recipe, cell_encoder = cell_parts(slides, size, cells, panel=panel, seed=seed)
            return cls(recipe, cell_encoder, encoder, slices=slices, virtual=virtual)

    @classmethod
    def from_options(  # type: ignore[override]
        cls,
        slides: Sequence[Slide],
        *,
        preset: Literal["tiny", "base"] = "tiny",
        num_genes: int = 1000,
        orthologs: str | None = None,
        seed: int = 0,
    ) -> Self:
        """As :meth:`for_slides`, with names and files in place of objects.

        Args:
            slides: The slides.
            preset: Widths and depths.
            num_genes: Most variable genes to read.
            orthologs: File of orthologues, see :func:`~spatiagraph.data.tokens.read_orthologs`: the
                model reads the genes of the other species, whose slides it then embeds as well.
            seed: Seed of the weights.
        """
        if orthologs is None:
            return cls.for_slides(slides, preset, num_genes=num_genes, seed=seed)
        table = read_orthologs(orthologs)
        panel = GeneVocabulary.from_slides(slides, num_genes=num_genes, orthologs=table)
        return cls.for_slides(slides, preset, panel=panel, seed=seed)

    @property
    def trains_cells(self) -> bool:
        """True if the encoder of cells is trained along."""
        return any(p.requires_grad for p in self.cell_encoder.parameters())

    def prepare(
        self, slide: Slide, *, device: str | torch.device = "cpu", learn: bool = False
    ) -> TissueData:
        """A slide with vectors of its cells, its sub-slices and its virtual cells.

        Args:
            slide: The slide.
            device: Where the encoder of cells runs.
            learn: Keep counts, where that encoder is trained along.

        Raises:
            ValueError: If the slide does not fit the recipe, or has no counts.
        """
        check_counted(self, slide, learn=learn)
        data = self.recipe(slide)
        z = self._vectors(data, torch.device(device))
        place, data.factor = self.slices.place(torch.from_numpy(slide.pos))
        part = self.slices.parts(torch.from_numpy(slide.pos))
        own, data.virtual_x, data.virtual_pos = torch.full_like(part, -1), z[:0], place[:0]
        data.clustering = "none"
        if self.virtual is not None:
            own, data.virtual_x, data.virtual_pos, data.clustering = self.virtual(z, place)
        data.virtual_size = torch.bincount(own[own >= 0], minlength=len(data.virtual_x))
        data.put(CELL, z=z, place=place, part=part, own=own)
        if not (learn and self.trains_cells):
            data.tokenizer = None
            data.drop("x")
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
        slides = whole_slides(slides, type(self).__name__)
        size = self.tile_size if tile_size is None else tile_size
        return SubSliceLoader(
            slides, self.slices, size, shuffle=shuffle, seed=seed, num_workers=num_workers
        )

    def inputs(self, batch: Data) -> tuple[Nodes]:
        index = batch.get("batch")
        if index is None:
            index = torch.zeros_like(batch.kind)
        return (Nodes(batch.z, batch.place, batch.kind, index, batch.pair_index),)

    def forward(self, nodes: Nodes) -> Embeddings:
        return Embeddings(self.encoder(nodes).h)

    def cells(self, batch: Data) -> Cells:
        """Measurements of the cells of a batch whose encoder is trained along.

        Args:
            batch: Of slides prepared with ``learn``.
        """
        return Cells(
            x=batch.get("x"),
            gene_mask=gene_mask(batch) if batch.get("x") is not None else None,
            depth=batch.get("depth"),
            gene_ids=batch.get("gene_ids"),
        )

    def notes(self, data: TissueData) -> SlideNotes:
        """Sub-slice and virtual cell of each cell, its vector without context, and the unit."""
        about = {
            "units_per_um": data.factor,
            "norm": self.slices.norm,
            "partition": self.slices.partition,
            "num_virtual_cells": len(data.virtual_x),
            "clustering": data.clustering,
        }
        return SlideNotes(
            obs={"sub_slice": data.part.numpy(), "virtual": data.own.numpy()},
            obsm={"cell": data.z.numpy()},
            uns=about,
        )

    def _vectors(self, data: TissueData, device: torch.device) -> Tensor:
        """Vector of each cell, ``[N, C]``, computed or read."""
        if self.cache is None:
            return self._encode(data, device)
        x, recipe = data.x, to_config(self.recipe)
        key = cache_key(
            "stofm cells",
            json.dumps([to_config(self.cell_encoder), recipe], sort_keys=True),
            self.cell_encoder.state_dict(),
            [x.crow_indices(), x.col_indices(), x.values(), data.gene_mask, data.depth],
        )
        return self.cache.get(key, lambda: self._encode(data, device), num_rows=data.num_nodes)

    @torch.no_grad()
    def _encode(self, data: TissueData, device: torch.device) -> Tensor:
        home = next(self.cell_encoder.parameters()).device
        found = []
        with evaluating(self.cell_encoder.to(device)):
            for rows in torch.arange(data.num_nodes).split(_CHUNK):
                taken = {k: v.to(device) for k, v in data.take(CELL, rows).items()}
                part = TissueData(num_nodes=len(rows), gene_mask=data.gene_mask.to(device), **taken)
                found.append(self.cell_encoder(self.cells(part)).float().cpu())
        self.cell_encoder.to(home)
        return torch.cat(found)
