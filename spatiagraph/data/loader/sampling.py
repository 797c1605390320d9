"""Orders of mini-batches that depend on seed and epoch alone, so that runs can resume."""

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch.utils.data import Sampler

Item = TypeVar("Item")


class SeededSampler(Sampler[Item]):
    """A new order in every epoch.

    Args:
        seed: Seed of all epochs.
    """

    def __init__(self, seed: int):
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; called by the trainer."""
        self.epoch = epoch

    def generator(self) -> torch.Generator:
        """Randomness of the epoch.

        To be asked for at the first item: a resumed trainer sets the epoch after it made the
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

    def __len__(self) -> int:
        return self.num_items

    def __iter__(self) -> Iterator[int]:
        yield from torch.randperm(self.num_items, generator=self.generator()).tolist()
