"""Orders of mini-batches that depend only on seed and epoch, so that runs can resume."""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.utils.data import Dataset, Sampler

Item = TypeVar("Item")


class Numbers(Dataset[Any]):
    """The numbers of items, for loaders whose ``collate_fn`` makes batches of them.

    Args:
        num_items: Number of items.
    """

    def __init__(self, num_items: int):
        self.num_items = num_items

    def __len__(self) -> int:
        return self.num_items

    def __getitem__(self, number: int) -> int:
        return number


class SeededSampler(Sampler[Item]):
    """A new order in every epoch, split among the processes that train together.

    Every process makes the same order and takes each of its items in turn. They get equally many:
    the last ones may be items of the beginning again.

    Args:
        seed: Seed of all epochs.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self.epoch = 0
        self.num_items = 0  # of an epoch, of all processes together

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; called by the trainer."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_items // _num_processes())

    def __iter__(self) -> Iterator[Item]:
        if _num_processes() == 1:
            yield from self.items()
        else:
            yield from of_process(list(self.items()), distributed.get_rank(), _num_processes())

    def items(self) -> Iterator[Item]:
        """Items of the epoch, of all processes together."""
        raise NotImplementedError

    def generator(self) -> torch.Generator:
        """Randomness of the epoch.

        To be made at the first item: a resumed trainer sets the epoch after it made the
        iterator.
        """
        return _generator(self.seed, self.epoch)


class EpochSampler(SeededSampler[int]):
    """All items in a new order in every epoch.

    Args:
        num_items: Number of items.
        seed: Seed of all epochs.
    """

    def __init__(self, num_items: int, seed: int):
        super().__init__(seed)
        self.num_items = num_items

    def items(self) -> Iterator[int]:
        yield from epoch_order(self.num_items, self.seed, self.epoch)


def epoch_order(
    num_items: int, seed: int, epoch: int, *, rank: int = 0, world_size: int = 1
) -> list[int]:
    """Items of an epoch in their order, those of one of the processes that train together.

    Batch ``b`` of rank ``r`` is number ``b * world_size + r`` of the order of all, so a step of two
    processes sees what a step of one process sees that makes steps of two batches.

    Args:
        num_items: Number of items, such as the tiles of a cohort.
        seed: Seed of all epochs.
        epoch: Number of the epoch.
        rank: Number of the process.
        world_size: Number of processes.

    Raises:
        ValueError: There is no such process.

    Examples:
        >>> epoch_order(5, seed=0, epoch=1)
        [0, 4, 2, 3, 1]
        >>> [epoch_order(5, 0, 1, rank=rank, world_size=2) for rank in range(2)]
        [[0, 2, 1], [4, 3, 0]]
    """
    order = torch.randperm(num_items, generator=_generator(seed, epoch)).tolist()
    return of_process(order, rank, world_size)


def of_process(items: Sequence[Item], rank: int, world_size: int) -> list[Item]:
    """Every ``world_size``-th item; the last may be of the beginning, so that all have as many.

    Args:
        items: Items of all processes, in order.
        rank: Number of the process.
        world_size: Number of processes.

    Raises:
        ValueError: There is no such process.
    """
    if not 0 <= rank < world_size:
        raise ValueError(f"Expected a rank from 0 to {world_size - 1}, got {rank}")
    each = -(-len(items) // world_size)
    return [items[i % len(items)] for i in range(rank, each * world_size, world_size)]


def _generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def _num_processes() -> int:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1
