"""Mini-batches of whole niches from all over a cohort: regions → niches → cells."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spatiagraph.data.convert.tissue_data import CELL, TissueData, batched
from spatiagraph.data.loader.chunks import NicheChunks, chunk_start, class_weights, niche_chunks
from spatiagraph.data.loader.cutting import cut_niches, fill_tile, in_hilbert_order
from spatiagraph.data.loader.region_sampler import RegionSampler, Step
from spatiagraph.data.recipe import Recipe
from spatiagraph.graph.ranges import ranges, row_of_each

logger = logging.getLogger(__name__)

_FILL = {"labels": -1, "window_um": 1}  # of what a slide lacks and others have, instead of 0
_MASK = "_mask"


class RegionDataset(Dataset[TissueData]):
    """The regions of some slides; items are the steps of a :class:`RegionSampler`.

    Args:
        slides: Whole slides, as :func:`~spatiagraph.data.to_data` makes them.
        max_cells: Most cells of a niche.
        weights: Weight of each cell of each slide.

    Raises:
        ValueError: If the slides were prepared in different ways, or no cell has a niche.
    """

    def __init__(
        self, slides: Sequence[TissueData], max_cells: int, weights: Sequence[Tensor] | None
    ):
        if not slides:
            raise ValueError("Expected at least one slide, got none")
        self.examples = _features(slides)
        slides = [_counting(data) for data in slides]
        self.table: NicheChunks = niche_chunks(slides, max_cells, weights)
        if not self.table.niche.numel():
            raise ValueError("Expected cells with a niche and a region, got none")
        parted = torch.stack([self.table.slide, self.table.niche])[:, self.table.part == 1]
        if parted.size(1):
            logger.info(
                "Niches of more than %d cells: %d. They come in parts of equal size, divided at "
                "random and anew in each epoch. Embedding reads all of their cells",
                max_cells,
                parted.size(1),
            )
        self.max_cells = max_cells
        self.slides = [in_hilbert_order(data) for data in slides]
        self._split: tuple[int, list[tuple[Tensor, Tensor]]] = (-1, [])  # by its seed

    def __getitem__(self, step: Step) -> TissueData:
        generator = torch.Generator().manual_seed(step.seed)
        slide = self.table.slide[step.chunk]
        parts = []
        for i in slide.unique().tolist():
            own = slide == i
            of_slide = step._replace(chunk=step.chunk[own], region_batch=step.region_batch[own])
            parts.append(self._part(i, of_slide, generator))
        return batched(parts)

    def _part(self, slide: int, step: Step, generator: torch.Generator) -> TissueData:
        """Chunks of the regions of one slide."""
        data, (cells, first) = self.slides[slide], self._cells_by_niche(step.split_seed)[slide]
        rows = step.chunk
        _, region = step.region_batch.unique(return_inverse=True)
        num_niches = data.num_items(data.level_names[0])
        order = (region * num_niches + self.table.niche[rows]).argsort()
        rows, region = rows[order], region[order]
        niches, part = self.table.niche[rows], self.table.part[rows]
        size = first[niches + 1] - first[niches]
        num_parts = -(-size // self.max_cells)
        start = first[niches] + chunk_start(size, num_parts, part)
        own = cells[ranges(start, self.table.size[rows])]
        group = row_of_each(self.table.size[rows])
        tile = cut_niches(data, niches, region, own, region[group], self.max_cells, generator)
        tile = fill_tile(tile, data, slide)
        for key, (level, example) in self.examples.items():
            if key not in tile:
                shape = (tile.num_items(level), *example.shape[1:])
                tile[key] = example.new_full(shape, _FILL.get(key, 0))
                tile.items_of[key] = level
        return tile

    def _cells_by_niche(self, seed: int) -> list[tuple[Tensor, Tensor]]:
        """For each slide its cells by niche, in an order of the epoch, and where niches begin."""
        if self._split[0] != seed:
            generator = torch.Generator().manual_seed(seed)
            split = []
            for data in self.slides:
                cells = torch.randperm(data.num_nodes, generator=generator)
                niche, num_niches = data[data.level_names[0]], data.num_items(data.level_names[0])
                cells = cells[niche[cells] >= 0]
                cells = cells[niche[cells].argsort(stable=True)]
                size = torch.bincount(niche[cells], minlength=num_niches)
                split.append((cells, torch.cat([size.new_zeros(1), size.cumsum(0)])))
            self._split = (seed, split)
        return self._split[1]


class HierarchicalLoader(DataLoader[TissueData]):
    """Loader of whole niches: regions are sampled, then niches of theirs, then their cells.

    A batch is a PyG batch of :class:`~spatiagraph.data.TissueData`, one graph for each slide that
    was sampled from. It holds the niches sampled and nothing else: their cells, the edges between
    cells of one region, their regions. Other cells are not there as context either: models learn
    from such batches; to embed a slide, use a :class:`TileLoader`.

    In an epoch every cell that has a niche in a region is core once. What is too large for one
    step comes up in several, divided at random and anew in each epoch: a niche of more than
    ``max_cells`` cells in chunks of equal size, a region of more than ``max_niches`` niches or
    with such a niche in several batches. A region of up to ``cells_per_step / 2`` cells otherwise
    stays whole; a larger one may end in the next step. Where niches overlap, a cell is core with
    its own niche, and the other members of that niche are context beyond ``cells_per_step``, at
    random where they are more than ``max_cells`` together.

    With ``weights``, niches are sampled with replacement instead, in proportion to the mean weight
    of their cells, until there are as many cells as in the slides: rare cells come up more often,
    others perhaps not at all.

    Args:
        slides: Whole slides, prepared alike. Images and labels that only some of them have are
            masked for the others; features, which have no mask, all have or none.
        cells_per_step: Core cells of a batch, at most.
        max_niches: Niches of a region in one batch, at most.
        max_cells: Cells of a niche in one batch, at most.
        weights: Weight of each cell of each slide, ``[N]``, such as from :func:`class_weights`.
        seed: Seed of the sampling, which depends on seed and epoch only.
        num_workers: Worker processes.

    Raises:
        ValueError: If limits are not positive or too small for a niche, slides were prepared in
            different ways, no cell has a niche, or weights do not fit.

    Examples:
        >>> from spatiagraph.data import make_tissue, to_data
        >>> from spatiagraph.data.recipe import Grid, Parts
        >>> data = to_data(make_tissue(500, image=None), levels=(Grid(), Parts()))
        >>> loader = HierarchicalLoader([data], cells_per_step=200)
        >>> sum(int(batch.core.sum()) for batch in loader)
        500
    """

    def __init__(
        self,
        slides: Sequence[TissueData],
        cells_per_step: int = 4096,
        *,
        max_niches: int = 256,
        max_cells: int = 64,
        weights: Sequence[Tensor] | None = None,
        seed: int = 0,
        num_workers: int = 0,
    ):
        limits = {"max_niches": max_niches, "max_cells": max_cells}
        for name, value in limits.items():
            if value < 1:
                raise ValueError(f"Expected {name!r} to be positive, got {value}")
        if weights is not None:
            _check_weights(slides, weights)
        dataset = RegionDataset(slides, max_cells, weights)
        sampler = RegionSampler(
            dataset.table, cells_per_step, max_niches, weights is not None, seed
        )
        super().__init__(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=num_workers,
            generator=torch.Generator().manual_seed(seed),  # else it draws from torch's own
        )


@dataclass(frozen=True)
class NicheBatches:
    """Whole niches from all over the slides as mini-batches of a run.

    Attributes:
        balance: Label whose classes are to come up equally often, one of the recipe's.
        max_niches: Niches of a region in one batch, at most.
        max_cells: Cells of a niche in one batch, at most.
    """

    balance: str | None = None
    max_niches: int = 256
    max_cells: int = 64

    def __call__(
        self,
        slides: Sequence[TissueData],
        recipe: Recipe,
        tile_size: int,
        *,
        seed: int = 0,
        num_workers: int = 0,
    ) -> HierarchicalLoader:
        """Loader of the slides.

        Args:
            slides: Whole slides, as the recipe makes them.
            recipe: Names the labels.
            tile_size: Core cells of a batch, at most.
            seed: Seed of the sampling.
            num_workers: Worker processes.

        Raises:
            ValueError: If the recipe has no label to balance by, or limits do not go together.
        """
        weights = None
        if self.balance is not None:
            names = [] if recipe.labels is None else list(recipe.labels.classes)
            if self.balance not in names:
                raise ValueError(
                    f"Expected 'balance' among the labels {names}, got {self.balance!r}"
                )
            column = names.index(self.balance)
            weights = class_weights([data.labels[:, column] for data in slides])
        return HierarchicalLoader(
            slides,
            tile_size,
            max_niches=self.max_niches,
            max_cells=self.max_cells,
            weights=weights,
            seed=seed,
            num_workers=num_workers,
        )


def _counting(data: TissueData) -> TissueData:
    """The slide; cells that do not count have no niche of their own, so are never sampled."""
    if bool(data.core.all()):
        return data
    data, first = copy.copy(data), data.level_names[0]
    data[first] = torch.where(data.core, data[first], -1)
    return data


def _check_weights(slides: Sequence[TissueData], weights: Sequence[Tensor]) -> None:
    shapes = [list(weight.shape) for weight in weights]
    wanted = [[data.num_nodes] for data in slides]
    if shapes != wanted:
        raise ValueError(f"Expected 'weights' of shapes {wanted}, got {shapes}")
    for i, weight in enumerate(weights):
        wrong = (~torch.isfinite(weight) | (weight < 0)).nonzero().squeeze(1)
        if wrong.numel():
            raise ValueError(
                f"Expected 'weights' of 0 or more, got {float(weight[wrong[0]])} and the like for "
                f"{wrong.numel()} cells of slide {i} (first rows: {wrong[:5].tolist()})"
            )


def _features(slides: Sequence[TissueData]) -> dict[str, tuple[str, Tensor]]:
    """Level and an example of every feature that some slide has; refuse slides that do not fit."""
    found: dict[str, tuple[str, Tensor]] = {}
    every: list[set[str]] = []
    for i, data in enumerate(slides):
        if len(data.level_names) != 2:
            raise ValueError(
                f"Expected two levels, niches and regions of them, got {data.level_names} for "
                f"slide {i}: use a TileLoader"
            )
        every.append(set())
        for level in (CELL, *data.level_names):
            for key, value in data.take(level, torch.zeros(1, dtype=torch.long)).items():
                every[i].add(key)
                _, first = found.setdefault(key, (level, value))
                shape, other = list(value.shape[1:]), list(first.shape[1:])
                if shape != other and key not in ("gene_ids", "gene_values"):
                    raise ValueError(
                        f"Expected slides that were prepared alike, got {key!r} of {shape} per "
                        f"item for slide {i} and of {other} before it"
                    )
    some = [key for key in found if not all(key in has for has in every)]
    unmasked = [
        k for k in some if k not in _FILL and f"{k.removesuffix(_MASK)}{_MASK}" not in found
    ]
    if unmasked:
        raise ValueError(
            f"Expected {unmasked} in all slides or in none, got them in some, and no mask to say so"
        )
    return found
