"""``ReflectedCrops``: windows that leave the image are filled with its mirror image, and named."""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spatiagraph.data.crops import CropSource


class ReflectedCrops(CropSource):
    """Crops that go on beyond the border of the image as its mirror image, in place of black.

    A network would take black margins for a property of the tissue. Crops whose middle lies outside
    of the image stay black: they are those that the mask of :meth:`read` names.

    Args:
        *args: As :class:`~spatiagraph.data.CropSource`.
        **kwargs: Likewise.

    Attributes:
        padded: Crops of which a part lies outside of the image, ``[n]`` bool.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        first, last = self._visible(np.arange(len(self)))
        self.padded: Tensor = ((first > 0) | (last < self.size_px)).any(1)

    def read(
        self, rows: NDArray[np.int64] | Tensor | None = None, *, progress: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Crops ``[B, C, S, S]`` in [0, 1], and which have their middle on the image, ``[B]``.

        Args:
            rows: Rows of the positions, ``[B]``; all of them when not given.
            progress: Show a progress bar.

        Raises:
            ValueError: If the image is damaged there.
        """
        crops, inside = super().read(rows, progress=progress)
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows)
        at = np.flatnonzero(self.padded[chosen].numpy() & inside.numpy())
        if len(at):
            first, last = self._visible(chosen[at])
            source = mirrored(first, last, self.size_px)  # [b, 2, S]: rows, columns
            index = torch.from_numpy(at)
            row, column = source[:, 0, None, :, None], source[:, 1, None, None, :]
            crops = crops.clone()
            crops[index] = crops[index[:, None, None, None], self._channels, row, column]
        return crops, inside

    def select(self, rows: NDArray[np.int64] | Tensor) -> Self:
        """Source of the same crops in another order, or of some of them."""
        other = super().select(rows)
        other.padded = self.padded[torch.as_tensor(np.asarray(rows))]
        return other

    @property
    def _channels(self) -> Tensor:
        return torch.arange(self.shape[0])[None, :, None, None]

    def _visible(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """First and last pixel of each crop that lies on the image whole: row, column, ``[n, 2]``.

        Windows may be shifted by up to half a pixel of the image, so a pixel of the crop at the
        border is counted as outside if the shift may have taken it there.
        """
        x0, y0, x1, y1 = self.image.extent_um
        window = self.window_um[rows, None]
        corner = self.centres[rows, ::-1] - window / 2  # y, x
        pixel = window / self.size_px
        slack = np.minimum(0.5, self.image.mpp / 2 / pixel) + 1e-6
        low = (np.array([y0, x0]) - corner) / pixel
        high = (np.array([y1, x1]) - corner) / pixel
        first = np.where(low <= slack, 0, np.ceil(low + slack))
        last = np.where(high >= self.size_px - slack, self.size_px, np.floor(high - slack))
        first = np.clip(first, 0, self.size_px - 1).astype(np.int64)
        last = np.clip(last, first + 1, self.size_px).astype(np.int64)
        return torch.from_numpy(first), torch.from_numpy(last)


def mirrored(first: Tensor, last: Tensor, size: int) -> Tensor:
    """Pixel to take for each pixel: itself between two bounds, its mirror image outside of them.

    Args:
        first: First pixel that is known, ``[...]``.
        last: Pixel behind the last one that is known, ``[...]``.
        size: Pixels, :math:`S`.

    Returns:
        ``[..., S]``.

    Examples:
        >>> mirrored(torch.tensor([2]), torch.tensor([5]), 8).tolist()
        [[4, 3, 2, 3, 4, 3, 2, 3]]
    """
    low, known = first.unsqueeze(-1), (last - first).unsqueeze(-1)
    period = (2 * (known - 1)).clamp(min=1)
    step = (torch.arange(size) - low) % period
    return low + torch.minimum(step, period - step) * (known > 1)
