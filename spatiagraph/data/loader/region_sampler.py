"""Sampling of niches and regions for each step of an epoch."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from spatiagraph.data.loader.chunks import NicheChunks
from spatiagraph.data.loader.sampling import SeededSampler
from spatiagraph.graph.build.group import rank_in_group


class Step(NamedTuple):
    """Region batches of one step.

    Attributes:
        split_seed: Seed of the division of large niches, the same all through an epoch.
        seed: Seed of all else.
        chunk: Chunks sampled, rows of :class:`NicheChunks`, ``[P]``.
        region_batch: Batch of a region that each is part of, ascending, ``[P]``.
    """

    split_seed: int
    seed: int
    chunk: Tensor
    region_batch: Tensor


class RegionSampler(SeededSampler[Step]):
    """Sampler of regions, then of niches of theirs, until a step has its cells.

    Args:
        table: The niches in chunks.
        cells_per_step: Most cells of a step.
        max_niches: Most niches of a region in one step.
        weighted: Sample niches with replacement by their weight.
        seed: Seed of all epochs.

    Raises:
        ValueError: If a step does not hold twice the largest chunk, or all weights are 0.
    """

    def __init__(
        self, table: NicheChunks, cells_per_step: int, max_niches: int, weighted: bool, seed: int
    ):
        super().__init__(seed)
        self.table = table
        self.max_niches = max_niches
        self.weighted = weighted
        largest = int(table.size.max())
        if cells_per_step < 2 * largest:
            raise ValueError(
                f"Expected 'cells_per_step' of at least {2 * largest}, twice the largest niche, "
                f"got {cells_per_step}: raise it, or lower 'max_cells'"
            )
        if weighted and not bool((table.weight > 0).any()):
            raise ValueError("Expected a positive weight for some cell with a niche, all are 0")
        # A region of up to half a step stays whole, a larger one is divided between niches.
        region_size = torch.bincount(table.region_id, table.size).long()
        self.whole = region_size <= cells_per_step // 2
        of_region = region_size[table.region_id]
        unit = int(torch.where(self.whole[table.region_id], of_region, table.size).max())
        self.num_cells = int(table.size.sum())
        budget = self.num_cells + (largest if weighted else 0)
        # Steps of this mean size stay below the limit wherever units end, see _cuts.
        self.num_items = -(-budget // (cells_per_step - unit + 1))

    def items(self) -> Iterator[Step]:
        generator = self.generator()
        split_seed, first_seed = torch.randint(2**40, (2,), generator=generator).tolist()
        chunk = self._sample(generator)
        batch = self._region_batches(chunk)
        position = torch.randperm(int(batch.max()) + 1, generator=generator)[batch]
        order = position.argsort(stable=True)
        chunk, position = chunk[order], position[order]
        begins_unit = ~self.whole[self.table.region_id[chunk]]
        begins_unit[0] = True
        begins_unit[1:] |= position[1:] != position[:-1]
        cuts = self._cuts(begins_unit, self.table.size[chunk])
        steps = zip(chunk.tensor_split(cuts), position.tensor_split(cuts), strict=True)
        for i, (chunks, batches) in enumerate(steps):
            yield Step(split_seed, first_seed + i, chunks, batches)

    def _sample(self, generator: torch.Generator) -> Tensor:
        """Chunks of the epoch in random order: each once, or by weight."""
        size = self.table.size
        if not self.weighted:
            return torch.randperm(size.numel(), generator=generator)
        most = -(-self.num_cells // int(size.min()))
        share = self.table.weight.cumsum(0)
        point = torch.rand(most, dtype=torch.float64, generator=generator) * share[-1]
        chunk = torch.searchsorted(share, point, right=True).clamp(max=size.numel() - 1)
        last = int(torch.searchsorted(size[chunk].cumsum(0), self.num_cells))
        return chunk[: last + 1]

    def _region_batches(self, chunk: Tensor) -> Tensor:
        """Batch of a region that each chunk is part of: a niche once, ``max_niches`` at most."""
        again = rank_in_group(self.table.niche_id[chunk])
        region = self.table.region_id[chunk]
        _, batch = torch.stack([region, again]).unique(dim=1, return_inverse=True)
        _, batch = torch.stack([batch, rank_in_group(batch) // self.max_niches]).unique(
            dim=1, return_inverse=True
        )
        return batch

    def _cuts(self, begins_unit: Tensor, size: Tensor) -> Tensor:
        """Where steps begin but the first: at the unit behind each equal share of the cells.

        Shares of ``t`` cells and units of at most ``u`` make steps of less than ``t + u`` cells.
        """
        first = begins_unit.nonzero().squeeze(1)
        start = (size.cumsum(0) - size)[first]
        steps = min(self.num_items, first.numel())
        number = torch.arange(1, steps)
        cut = torch.searchsorted(start, -(-number * int(size.sum()) // steps))
        # no step is empty
        cut = (cut - number).clamp(min=0).cummax(0).values + number if steps > 1 else cut
        return first[torch.minimum(cut, first.numel() - steps + number)]
