"""``StrataLoader``: cells from all over a slide, some of every cluster in each mini-batch."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spatiagraph.data.convert.tissue_data import TissueData, batched
from spatiagraph.data.loader.cutting import cut_tile, fill_tile, in_hilbert_order
from spatiagraph.data.loader.sampling import SeededSampler

Part = tuple[int, Tensor]
"""Slide, and rows of some of its cells."""


class StrataDataset(Dataset[TissueData]):
    """Parts of slides side by side, each with the context of its cells.

    Args:
        slides: Whole slides.
        num_hops: Hops of the model over the cell graph.
    """

    def __init__(self, slides: Sequence[TissueData], num_hops: int):
        self.slides = [in_hilbert_order(data) for data in slides]
        self.num_hops = num_hops

    def __getitem__(self, parts: list[Part]) -> TissueData:
        tiles = []
        for slide, rows in parts:
            data = self.slides[slide]
            tile = cut_tile(data, rows, self.num_hops)
            tiles.append(fill_tile(tile, data, slide, crop_context=False))
        return batched(tiles)


class StrataSampler(SeededSampler[list[Part]]):
    """Every cell once in an epoch, in parts that are small copies of their slide.

    Args:
        strata: Stratum of each cell of each slide, ``[N]``; -1 for cells that do not count.
        batch_size: Cells of a batch, about.
        num_parts: Parts of a batch; more than one mix slides.
        least: Cells of every stratum in a part, at least: cells of small strata come up more often.
        shuffle: Draw anew in every epoch.
        seed: Seed of all epochs.

    Raises:
        ValueError: If a number is not positive, or no cell counts.
    """

    def __init__(
        self,
        strata: Sequence[Tensor],
        batch_size: int,
        *,
        num_parts: int = 4,
        least: int = 2,
        shuffle: bool = True,
        seed: int = 0,
    ):
        super().__init__(seed)
        for name, value in {"batch_size": batch_size, "num_parts": num_parts}.items():
            if value < 1:
                raise ValueError(f"Expected {name!r} of at least 1, got {value}")
        self.strata = list(strata)
        self.num_parts = min(num_parts, batch_size)
        self.part_size = -(-batch_size // self.num_parts)
        self.least = least
        self.shuffle = shuffle
        sizes = [int((stratum >= 0).sum()) for stratum in self.strata]
        if not any(sizes):
            raise ValueError("Expected cells that count, got none")
        self.parts_of = [-(-size // self.part_size) for size in sizes]
        self.num_items = -(-sum(self.parts_of) // self.num_parts)

    def items(self) -> Iterator[list[Part]]:
        generator = self.generator() if self.shuffle else torch.Generator().manual_seed(self.seed)
        parts: list[Part] = []
        for slide, (stratum, number) in enumerate(zip(self.strata, self.parts_of, strict=True)):
            if number:
                found = stratified(stratum, number, self.least, generator)
                parts += [(slide, rows) for rows in found]
        order = list(range(len(parts)))
        if self.shuffle:
            order = torch.randperm(len(parts), generator=generator).tolist()
        for start in range(0, len(order), self.num_parts):
            yield distinct([parts[i] for i in order[start : start + self.num_parts]])


class StrataLoader(DataLoader[TissueData]):
    """Loader of cells from all over the slides, with some of every stratum in each batch.

    What contrastive terms need that tell a cell from cells of other clusters: a tile of neighbours
    has one or two clusters. In an epoch every cell is core once, cells of strata that are smaller
    than their share of a batch in more batches, never twice in one. A batch has a graph for each of
    its parts; context is there as with :class:`~spatiagraph.data.TileLoader`, without its crops.

    Args:
        slides: Whole slides with the stratum of each cell under ``key``, ``[N]``; cells that are
            not ``core`` are context alone.
        batch_size: Cells of a batch, about.
        num_hops: Hops of the model over the cell graph.
        key: Attribute of the strata.
        num_parts: Parts of a batch, of one slide each.
        shuffle: Draw anew in every epoch; the same parts in the order of the slides otherwise.
        seed: Seed of the draws, which depend on seed and epoch only.
        num_workers: Worker processes.

    Raises:
        ValueError: If a number is not positive, or no cell counts.
    """

    def __init__(
        self,
        slides: Sequence[TissueData],
        batch_size: int,
        num_hops: int = 0,
        *,
        key: str = "cluster",
        num_parts: int = 4,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ):
        dataset = StrataDataset(slides, num_hops)
        strata = [torch.where(data.core, data[key], -1) for data in dataset.slides]
        super().__init__(
            dataset,
            batch_size=None,
            sampler=StrataSampler(
                strata, batch_size, num_parts=num_parts, shuffle=shuffle, seed=seed
            ),
            num_workers=num_workers,
            generator=torch.Generator().manual_seed(seed),  # else it draws from torch's own
        )


def distinct(parts: Sequence[Part]) -> list[Part]:
    """The parts without cells that an earlier one has; parts that are left empty are left out.

    Args:
        parts: Parts of a batch.

    Examples:
        >>> [rows.tolist() for _, rows in distinct([(0, torch.arange(3)), (0, torch.arange(4))])]
        [[0, 1, 2], [3]]
    """
    found: list[Part] = []
    for slide, rows in parts:
        for other, earlier in found:
            if other == slide:
                rows = rows[~torch.isin(rows, earlier)]
        if len(rows):
            found.append((slide, rows))
    return found


def stratified(
    stratum: Tensor, num_parts: int, least: int, generator: torch.Generator
) -> list[Tensor]:
    """Parts of equal size, each with the share of every stratum that all cells have.

    Args:
        stratum: Stratum of each cell, ``[N]``; -1 for none.
        num_parts: Number of parts.
        least: Cells of each stratum in a part, at least, as far as there are so many.
        generator: Draws who comes to which part.

    Returns:
        Rows of each part, ascending.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> parts = stratified(torch.tensor([0, 0, 1, 1, 1, 1]), 2, 1, generator)
        >>> [torch.tensor([0, 0, 1, 1, 1, 1])[rows].tolist() for rows in parts]
        [[0, 1, 1], [0, 1, 1]]
    """
    rows = (stratum >= 0).nonzero().squeeze(1)
    rows = rows[torch.randperm(len(rows), generator=generator)]
    rows = rows[stratum[rows].argsort(stable=True)]
    part = torch.arange(len(rows)) % num_parts  # dealt out like cards
    owned = rows[part.argsort(stable=True)].split(torch.bincount(part).tolist())
    found = [list(own.split(len(own))) for own in owned]
    for members in rows.split(torch.bincount(stratum[rows]).tolist()):
        if 0 < len(members) < least * num_parts:  # not enough for all
            for own, extra in zip(owned, found, strict=True):
                free = members[~torch.isin(members, own)]
                lacking = least - (len(members) - len(free))
                extra.append(
                    free[torch.randperm(len(free), generator=generator)][: max(lacking, 0)]
                )
    return [torch.cat(each).sort().values for each in found]
