"""Orders of mini-batches that depend on seed and epoch alone, so that runs can resume."""

from collections.abc import Iterator
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
            return
        items = list(self.items())
        for i in range(distributed.get_rank(), len(self) * _num_processes(), _num_processes()):
            yield items[i % len(items)]

    def items(self) -> Iterator[Item]:
        """Items of the epoch, of all processes together."""
        raise NotImplementedError

    def generator(self) -> torch.Generator:
        """Randomness of the epoch.

        To be made at the first item: a resumed trainer sets the epoch after it made the
        iterator.
        """
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)


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
        yield from torch.randperm(self.num_items, generator=self.generator()).tolist()


def _num_processes() -> int:
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1
