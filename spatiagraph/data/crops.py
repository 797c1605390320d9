"""``CropSource``: windows of an image around some positions, read row by row on demand."""

from copy import copy
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spatiagraph.data.checks import name_rows
from spatiagraph.data.image import SlideImage
from spatiagraph.data.slide import Slide


@runtime_checkable
class Crops(Protocol):
    """Crops that are read row by row: those of an image, or such as were kept."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a crop, ``(C, S, S)``."""

    def read(
        self, rows: NDArray[np.int64] | Tensor | None = None, *, progress: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Crops ``[B, C, S, S]`` in [0, 1] float32, and which of them lie on the image, ``[B]``."""

    def select(self, rows: NDArray[np.int64] | Tensor) -> "Crops":
        """The same crops in another order, or some of them."""


class CropSource:
    """Crops around the cells of a slide, or around the groups of a level; the one way to a crop.

    Nothing is read before rows are requested, and no crop is kept: they are made anew from the
    pixels of the image, which are held as they are stored, within a bound for all slides together
    (:data:`spatiagraph.data.image.HELD`).

    Args:
        slide: The slide, with an image.
        centres: Where to crop, in µm, ``[n, 2]``.
        window_um: Side of the windows in µm, one for all or ``[n]``.
        size_px: Side of the crops in pixels, :math:`S`.

    Raises:
        ValueError: If there is no image, or it is smaller than a window.
    """

    def __init__(
        self,
        slide: Slide,
        centres: NDArray[np.float64],
        window_um: float | NDArray[np.floating],
        size_px: int,
    ):
        self.image = image_of(slide, window_um)
        self.centres = centres
        self.window_um = np.broadcast_to(np.asarray(window_um, dtype=np.float64), len(centres))
        self.size_px = size_px

    def __len__(self) -> int:
        return len(self.centres)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a crop, ``(C, S, S)``."""
        return (self.image.num_channels, self.size_px, self.size_px)

    def read(
        self, rows: NDArray[np.int64] | Tensor | None = None, *, progress: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Crops ``[B, C, S, S]`` in [0, 1] float32, and which of them lie on the image, ``[B]``.

        Args:
            rows: Rows of the positions, ``[B]``; all of them when not given.
            progress: Show a progress bar.

        Raises:
            ValueError: If the image is damaged there.
        """
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows)
        crops, inside = self.image.crops(
            self.centres[chosen], self.window_um[chosen], self.size_px, progress=progress
        )
        return torch.from_numpy(crops), torch.from_numpy(inside)

    def select(self, rows: NDArray[np.int64] | Tensor) -> Self:
        """Source of the same crops in another order, or of some of them."""
        chosen = np.asarray(rows)
        other = copy(self)
        other.centres, other.window_um = self.centres[chosen], self.window_um[chosen]
        return other


def image_of(slide: Slide, window_um: float | NDArray[np.floating]) -> SlideImage:
    """Image of a slide, if windows of a size fit on it.

    Raises:
        ValueError: There is none, or it is smaller than a window.
    """
    if slide.image is None:
        raise ValueError(f"Expected an image with slide {slide.slide_id!r} to crop from, got none")
    x0, y0, x1, y1 = slide.image.extent_um
    widest, side = float(np.max(window_um, initial=0)), max(x1 - x0, y1 - y0)
    if widest > side:
        text = (
            f"Expected crops no larger than the image of slide {slide.slide_id!r} "
            f"({x1 - x0:g} × {y1 - y0:g} µm), got "
        )
        if np.shape(window_um) == (slide.num_cells,):
            rows = np.flatnonzero(np.asarray(window_um) > side)
            raise ValueError(
                f"{text}windows of up to {widest:g} µm for {len(rows)} cells: "
                f"{name_rows(slide.adata.obs_names, rows)}. Leave these cells out, or their "
                "outlines or sizes"
            )
        raise ValueError(f"{text}a window of {widest:g} µm: lower window_um")
    return slide.image
