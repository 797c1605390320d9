"""Mini-batches of crops that are in memory, and what is held out of them."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import DataLoader

from spatiagraph.data.loader.sampling import EpochSampler, Numbers


def as_crops(images: ArrayLike | Tensor) -> Tensor:
    """Crops as a tensor of numbers, ``[N, C, H, W]``.

    Raises:
        ValueError: They have another number of axes, or are integers.
    """
    image = images if isinstance(images, Tensor) else torch.as_tensor(np.asarray(images))
    if image.dim() != 4:
        raise ValueError(f"Expected crops [N, C, H, W], got {list(image.shape)}")
    if not image.is_floating_point():
        raise ValueError(f"Expected crops as numbers in [0, 1], got {image.dtype}: divide by 255")
    return image


def held_out_rows(valid: Tensor, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to test on and rows to learn from, of those that are valid.

    Args:
        valid: Which rows count, ``[N]``.
        held_out: Share to test on.
        seed: Of the draw.

    Raises:
        ValueError: The share is none.
    """
    if not 0 < held_out < 1:
        raise ValueError(f"Expected 'held_out' between 0 and 1, got {held_out}")
    rows = valid.nonzero().squeeze(1)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    num_test = round(held_out * len(rows))
    return rows[:num_test], rows[num_test:]


def tensor_batches(
    tensors: Mapping[str, Tensor], rows: Tensor, batch_size: int, seed: int, num_workers: int
) -> DataLoader[dict[str, Tensor]]:
    """Mini-batches of some rows in an order of each epoch; images as float32.

    Args:
        tensors: What a batch maps to, ``[N, ...]`` each.
        rows: Rows to learn from.
        batch_size: Rows of a mini-batch.
        seed: Of the order.
        num_workers: Processes that prepare batches.
    """

    def batch(chosen: list[int]) -> dict[str, Tensor]:
        index = rows[chosen]
        return {k: x[index].float() if k == "image" else x[index] for k, x in tensors.items()}

    return DataLoader(
        Numbers(len(rows)),
        batch_size,
        sampler=EpochSampler(len(rows), seed),
        collate_fn=batch,
        num_workers=num_workers,
        generator=torch.Generator().manual_seed(seed),  # else it draws from torch's own
    )
