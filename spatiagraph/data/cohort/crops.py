"""``StoredCrops``: crops that were made once and kept, one byte a value."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MOST = 255


class StoredCrops:
    """Crops that are kept, in place of a :class:`~spatiagraph.data.CropSource`.

    Args:
        crops: Values in [0, 255], ``[n, C, S, S]``.
        inside: Which of them lie on the image, ``[n]`` bool.

    Raises:
        ValueError: If they are of another type or shape.
    """

    def __init__(self, crops: NDArray[np.uint8], inside: NDArray[np.bool_]):
        if crops.dtype != np.uint8 or crops.ndim != 4 or inside.shape != (len(crops),):
            raise ValueError(
                f"expected crops [n, C, S, S] of one byte a value and a mask [n], got "
                f"{crops.dtype} {list(crops.shape)} and {list(inside.shape)}"
            )
        self.crops = crops
        self.inside = inside

    def __len__(self) -> int:
        return len(self.crops)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a crop, ``(C, S, S)``."""
        channels, height, width = self.crops.shape[1:]
        return (channels, height, width)

    def read(
        self, rows: NDArray[np.int64] | Tensor | None = None, *, progress: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Crops ``[B, C, S, S]`` in [0, 1] float32, and which of them lie on the image, ``[B]``.

        Args:
            rows: Rows of the positions, ``[B]``; all of them when not given.
            progress: Not needed: nothing is computed.
        """
        chosen: Any = slice(None) if rows is None else np.asarray(rows)
        crops = torch.from_numpy(self.crops[chosen]).float().div_(_MOST)
        return crops, torch.from_numpy(self.inside[chosen].copy())

    def select(self, rows: NDArray[np.int64] | Tensor) -> "StoredCrops":
        """The same crops in another order, or some of them."""
        chosen = np.asarray(rows)
        return StoredCrops(self.crops[chosen], self.inside[chosen])


def as_bytes(crops: Tensor) -> NDArray[np.uint8]:
    """Crops in [0, 1] as one byte a value: half a step of 1/255 off at most.

    Args:
        crops: ``[n, C, S, S]``.
    """
    return crops.mul(_MOST).round_().clamp_(0, _MOST).to(torch.uint8).numpy()
