"""Sampling of niches and regions for each step of an epoch."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from spatiagraph.data.loader.portions import Portions
from spatiagraph.data.loader.sampling import SeededSampler
from spatiagraph.graph.build.group import rank_in_group


class Draw(NamedTuple):
    """Region batches of one step.

    Attributes:
        deal: Seed of the division of large niches, the same all through an epoch.
        seed: Seed of all else.
        portion: What was drawn, rows of :class:`Portions`, ``[P]``.
        visit: Visit to a region that each is part of, ascending, ``[P]``.
    """

    deal: int
    seed: int
    portion: Tensor
    visit: Tensor


class RegionSampler(SeededSampler[Draw]):
    """Draws regions, then niches of theirs, until a step has its cells.

    Args:
        table: The niches in portions.
        cells_per_step: Most cells of a step.
        max_niches: Most niches of a region in one step.
        weighted: Draw niches with replacement by their weight.
        seed: Seed of all epochs.

    Raises:
        ValueError: If a step does not hold twice the largest portion, or all weights are 0.
    """

    def __init__(
        self, table: Portions, cells_per_step: int, max_niches: int, weighted: bool, seed: int
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

    def draw(self) -> Iterator[Draw]:
        generator = self.generator()
        deal, first_seed = torch.randint(2**40, (2,), generator=generator).tolist()
        drawn = self._draw(generator)
        visit = self._visits(drawn)
        turn = torch.randperm(int(visit.max()) + 1, generator=generator)[visit]
        order = turn.argsort(stable=True)
        drawn, turn = drawn[order], turn[order]
        begins_unit = ~self.whole[self.table.region_id[drawn]]
        begins_unit[0] = True
        begins_unit[1:] |= turn[1:] != turn[:-1]
        cuts = self._cuts(begins_unit, self.table.size[drawn])
        steps = zip(drawn.tensor_split(cuts), turn.tensor_split(cuts), strict=True)
        for i, (portion, visited) in enumerate(steps):
            yield Draw(deal, first_seed + i, portion, visited)

    def _draw(self, generator: torch.Generator) -> Tensor:
        """Portions of the epoch in random order: each once, or by weight."""
        size = self.table.size
        if not self.weighted:
            return torch.randperm(size.numel(), generator=generator)
        most = -(-self.num_cells // int(size.min()))
        share = self.table.weight.cumsum(0)
        point = torch.rand(most, dtype=torch.float64, generator=generator) * share[-1]
        drawn = torch.searchsorted(share, point, right=True).clamp(max=size.numel() - 1)
        last = int(torch.searchsorted(size[drawn].cumsum(0), self.num_cells))
        return drawn[: last + 1]

    def _visits(self, drawn: Tensor) -> Tensor:
        """Visit to a region that each portion is part of: a niche once, ``max_niches`` at most."""
        again = rank_in_group(self.table.niche_id[drawn])
        region = self.table.region_id[drawn]
        _, visit = torch.stack([region, again]).unique(dim=1, return_inverse=True)
        _, visit = torch.stack([visit, rank_in_group(visit) // self.max_niches]).unique(
            dim=1, return_inverse=True
        )
        return visit

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
