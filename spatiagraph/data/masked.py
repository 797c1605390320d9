"""``MaskedCrops``: crops in which other cells, or all but the own cell, are black."""

from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spatiagraph.data.crops import CropSource
from spatiagraph.data.outlines import Mask, Outlines
from spatiagraph.data.slide import Slide


class MaskedCrops(CropSource):
    """Crops around cells, cut along outlines.

    Args:
        slide: The slide, with an image and outlines.
        window_um: Side of the windows in µm, one for all or ``[N]``.
        size_px: Side of the crops in pixels, :math:`S`.
        mask: ``"cell"`` leaves nothing but the cell itself; ``"neighbors"`` blackens what lies
            inside of other cells and not of its own, and leaves what is in none. Of a cell without
            an outline all is left but its neighbours.

    Raises:
        ValueError: If there is no image or it is smaller than a window, or there are no outlines.
    """

    def __init__(
        self, slide: Slide, window_um: float | NDArray[np.floating], size_px: int, mask: Mask
    ):
        super().__init__(slide, slide.pos, window_um, size_px)
        self.outlines = outlines_of(slide)
        self.mask = mask
        self.cells = np.arange(len(self))

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
        crops, inside = super().read(rows, progress=progress)
        chosen = np.arange(len(self)) if rows is None else np.asarray(rows)
        return crops * torch.from_numpy(self._kept(chosen))[:, None], inside

    def inside(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Pixels of some crops that lie inside of their own cell, ``[B, S, S]``.

        Args:
            rows: Rows of the positions, ``[B]``.
        """
        return self.outlines.inside(self.cells[rows], self._windows(rows), self.size_px)

    def select(self, rows: NDArray[np.int64] | Tensor) -> Self:
        """Source of the same crops in another order, or of some of them."""
        other = super().select(rows)
        other.cells = self.cells[np.asarray(rows)]
        return other

    def _windows(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return self.image.windows(self.centres[rows], self.window_um[rows], self.size_px)

    def _kept(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        own, cells = self.inside(rows), self.cells[rows]
        if self.mask == "cell" and self.outlines.known[cells].all():
            return own
        others = self.outlines.inside_others(cells, self._windows(rows), self.size_px)
        if self.mask == "neighbors":
            return own | ~others
        without = ~self.outlines.known[cells, None, None]
        return own | (without & ~others)


def outlines_of(slide: Slide) -> Outlines:
    """Outlines of the cells of a slide.

    Raises:
        ValueError: There are none.
    """
    if slide.outlines is None:
        raise ValueError(
            f"Expected outlines of the cells of slide {slide.slide_id!r}, got none: pass "
            "outlines=True to read() for those of the instrument, or a file of your own"
        )
    return slide.outlines
