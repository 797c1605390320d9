"""Crops of a recipe: windows around cells, or around the groups of a level."""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from spatiagraph._reasons import reason
from spatiagraph.data.checks import name_rows
from spatiagraph.data.convert.tissue_data import CELL
from spatiagraph.data.crops import CropSource
from spatiagraph.data.masked import MaskedCrops, outlines_of
from spatiagraph.data.outlines import Mask
from spatiagraph.data.recipe.rule import Rule, obs_column, positive
from spatiagraph.data.reflected import ReflectedCrops
from spatiagraph.data.slide import Slide


@dataclass(frozen=True)
class Crop(Rule):
    """Square windows of the image, resized to one size.

    Attributes:
        window_um: Side of the window in µm; ``None`` where every cell has its own in ``obs``.
        size_px: Side of the crop in pixels.
        of: ``"cell"``, or the name of a level, around whose centres to crop.
        window_key: Column of ``obs`` with the side of each cell's window in µm, for crops that are
            all zoomed to one size; where it is missing, ``window_um``.
        name: Attribute of the crops in a batch, for a second crop of the same cells or groups.
        reflect: Mirror the image where a window leaves it, and say so: see
            :class:`~spatiagraph.data.reflected.ReflectedCrops`. Black otherwise.
        mask: Along the outlines of cells, ``"cell"`` blackens all but the cell and
            ``"neighbors"`` its neighbours: see :class:`~spatiagraph.data.masked.MaskedCrops`.

    Raises:
        ValueError: If a size is not positive, or a level is to have windows from ``obs``, or masks.
    """

    window_um: float | None = 13.6
    size_px: int = 32
    of: str = CELL
    window_key: str | None = None
    name: str | None = None
    reflect: bool = False
    mask: Mask | None = None

    def __post_init__(self) -> None:
        positive(self, "size_px", integer=True)
        if self.window_um is not None:
            positive(self, "window_um")
        elif self.window_key is None:
            raise ValueError("Expected 'window_um' or 'window_key' of Crop, got neither")
        if self.window_key is not None and self.of != CELL:
            raise ValueError(
                f"Expected 'window_key' with crops of cells, got it with crops of {self.of!r}"
            )
        if self.mask is not None:
            if self.mask not in get_args(Mask):
                raise ValueError(f"Expected 'mask' in {get_args(Mask)} or None, got {self.mask!r}")
            if self.of != CELL or self.reflect:
                other = "reflect=True" if self.reflect else f"crops of {self.of!r}"
                raise ValueError(f"Expected 'mask' with plain crops of cells, got it with {other}")

    @property
    def key(self) -> str:
        """Attribute of the crops in a batch: the name, ``"image"``, or ``"{level}_image"``."""
        if self.name is not None:
            return self.name
        return "image" if self.of == CELL else f"{self.of}_image"

    @property
    def same_for_all(self) -> bool:
        """True where all windows are of one size."""
        return self.window_key is None

    def windows_um(self, slide: Slide) -> float | NDArray[np.float64]:
        """Side of the windows in µm: one for all, or ``[N]``.

        Raises:
            ValueError: If cells have none, or the column holds something else.
        """
        if self.window_key is None:
            assert self.window_um is not None  # one of the two is there
            return self.window_um
        column: Any = obs_column(slide, self.window_key)
        try:
            window = column.to_numpy(dtype=np.float64, na_value=np.nan)
        except (TypeError, ValueError) as err:
            raise ValueError(
                f"Expected sizes in µm in obs[{self.window_key!r}] of slide {slide.slide_id!r}: "
                f"{reason(err)}"
            ) from err
        if self.window_um is not None:
            window = np.where(np.isnan(window), self.window_um, window)
        wrong = np.flatnonzero(~(np.isfinite(window) & (window > 0)))
        if wrong.size:
            raise ValueError(
                f"Expected sizes in µm in obs[{self.window_key!r}], got {window[wrong[0]]:g} for "
                f"{name_rows(slide.adata.obs_names, wrong)}. Give window_um for missing ones"
            )
        return window

    def native_px(self, mpp: float) -> int:
        """Side in pixels of the windows as they are on an image, rounded down.

        Args:
            mpp: µm per pixel of the image.

        Raises:
            ValueError: If windows differ from cell to cell.

        Examples:
            >>> Crop(100.0).native_px(2.75)
            36
        """
        if self.window_um is None or not self.same_for_all:
            raise ValueError("Expected one 'window_um' of all cells, got one of each")
        return int(self.window_um / mpp * (1 + 1e-9))

    def source(self, slide: Slide, centres: NDArray[np.float64]) -> CropSource:
        """The crops around some positions, to be read on demand.

        Args:
            slide: The slide, with an image.
            centres: Where to crop, in µm, ``[n, 2]``.

        Raises:
            ValueError: If there is no image or it is smaller than a window, or there are no
                outlines where they are needed.
        """
        kind = ReflectedCrops if self.reflect else CropSource
        try:
            if self.mask is not None:
                return MaskedCrops(slide, self.windows_um(slide), self.size_px, self.mask)
            return kind(slide, centres, self.windows_um(slide), self.size_px)
        except ValueError as err:
            raise ValueError(f"In {self}: {err}") from err


@dataclass(frozen=True)
class AdaptiveCrop(Crop):
    """Windows as large as their cells, all resized to one size, as published for SPATIA.

    Half of a side is the largest distance from the centre of the cell to the four sides of the box
    around its outline, and at least so many pixels of the image. Every cell then fills its crop,
    and its size is told by ``window_um`` of the batch alone.

    Attributes:
        window_um: Side of the window in µm of cells that have no outline.
        min_px: Least half side in pixels of the image.

    Raises:
        ValueError: If a size is not positive, or crops are not of cells.

    `SPATIA <https://arxiv.org/abs/2507.04704>`_.
    """

    min_px: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "min_px")
        if self.of != CELL or self.window_key is not None or self.window_um is None:
            raise ValueError(
                "Expected AdaptiveCrop of cells by their outlines, and window_um for those "
                f"without, got {self}"
            )

    @property
    def same_for_all(self) -> bool:
        """True where all windows are of one size."""
        return False

    def windows_um(self, slide: Slide) -> NDArray[np.float64]:
        """Side of the windows in µm, ``[N]``.

        Raises:
            ValueError: If the slide has no outlines, or no image.
        """
        outlines = outlines_of(slide)
        if slide.image is None:
            raise ValueError(f"Expected an image with slide {slide.slide_id!r}, got none")
        half = np.maximum(outlines.half_sides_um(slide.pos), self.min_px * slide.image.mpp)
        assert self.window_um is not None  # it was asked for
        return np.where(outlines.known, 2 * half, self.window_um)
