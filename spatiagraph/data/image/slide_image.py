"""A slide image of any size, addressed in µm."""

import os
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from spatiagraph._typed import typed
from spatiagraph.data.image.crops import add_crops, snapped_windows
from spatiagraph.data.image.formats import as_level, open_levels
from spatiagraph.data.image.level import LazyArray, Level
from spatiagraph.data.image.pixel_size import warn_of_scales
from spatiagraph.data.image.resample import area_weights
from spatiagraph.data.image.value_range import FEWEST_VALUES, value_range_of, values_seen

_CHECKED = 2048  # pixels of each side that are decoded at a time


class SlideImage:
    """Image pyramid placed in the slide's coordinates and read only where it is needed.

    Pixel ``(row i, column j)`` of the finest level covers
    ``x0 + [j, j + 1) * mpp`` along x and ``y0 + [i, i + 1) * mpp`` along y, with
    ``origin_um = (x0, y0)`` the outer corner of the first pixel: x runs along columns and y along
    rows, downwards. The centre of that pixel is half a pixel further.

    Args:
        levels: The image at decreasing resolution, each ``[H, W]`` or ``[H, W, C]``, all covering
            the same area. Anything that can be sliced: numpy, Zarr, dask.
        mpp: µm per pixel of the first level.
        origin_um: x and y of the first pixel's outer corner in µm.
        value_range: Values that become 0 and 1 in crops, a pair or ``[C, 2]``. By default
            0 and white for pictures in white light, as H&E: ``(0, 255)`` of 8 bits, or the largest
            value of as many bits as they hold; otherwise the 0.1 and 99.9 percentiles of each
            channel. Kept as :attr:`value_range`.
        path: File of the image, for error messages.
        axes: Axes of the file, as given to :meth:`open`.

    Attributes:
        channel_names: Names of the channels, where the file has them; else empty.

    Raises:
        ValueError: If the levels are not one image, or ``mpp`` is not a positive number.

    Examples:
        >>> image = SlideImage([np.zeros((60, 80), np.uint8)], mpp=0.5, origin_um=(10, 0))
        >>> image.extent_um
        (10.0, 0.0, 50.0, 30.0)
        >>> crops, mask = image.crops(np.array([[12.0, 3.0]]), window_um=8, size_px=16)
        >>> crops.shape, mask
        ((1, 1, 16, 16), array([ True]))
    """

    def __init__(
        self,
        levels: Sequence[LazyArray | Level],
        *,
        mpp: float,
        origin_um: tuple[float, float] = (0.0, 0.0),
        value_range: tuple[float, float] | np.ndarray | None = None,
        path: str | os.PathLike | None = None,
        axes: str | None = None,
    ):
        name = "the image" if path is None else str(path)
        if not levels:
            raise ValueError(f"Expected at least one level of {name}, got none")
        if not np.isfinite(mpp) or mpp <= 0:
            raise ValueError(f"Expected 'mpp' as a positive number of µm per pixel, got {mpp}")
        if len(origin_um) != 2 or not np.isfinite(origin_um).all():
            raise ValueError(f"Expected 'origin_um' as (x, y) in µm, got {origin_um}")
        self.path = None if path is None else Path(path)
        self.axes = axes
        self.mpp = float(mpp)
        self.origin_um = (float(origin_um[0]), float(origin_um[1]))
        self._opened = [as_level(a, name) for a in levels]
        self._reopen: Callable[[], list[Level]] | None = None
        self._process = os.getpid()
        self.channel_names: tuple[str, ...] = ()
        self._is_given = value_range is not None
        self._downsample = _downsampling(self._levels, name)
        scales = self.mpp * self._downsample
        self.value_range, self._seen = value_range_of(self._levels, scales, value_range, name)

    @classmethod
    @typed
    def open(
        cls,
        path: str | os.PathLike,
        *,
        mpp: float | None = None,
        origin_um: tuple[float, float] = (0.0, 0.0),
        channels: Sequence[int] | None = None,
        axes: str | None = None,
        value_range: tuple[float, float] | np.ndarray | None = None,
    ) -> Self:
        """Open a PNG, JPEG, TIFF of any maker, Zarr array, group of arrays or OME-Zarr image.

        What the file is, is decided by its content, not by its name. TIFF and Zarr images are read
        piece by piece; PNG and JPEG are decoded whole. A z-stack is reduced by maximum projection,
        as is usual for nuclear stains. An alpha channel is dropped. Pages of which a TIFF says
        nothing are channels, with a warning; channels whose files are missing are left out, with
        a warning.

        Args:
            path: Where the image is.
            mpp: µm per pixel; by default what OME metadata or the scanner's maker wrote. Another
                than that is taken, with a warning.
            origin_um: x and y of the first pixel's outer corner in µm.
            channels: Channels to keep; all by default.
            axes: What the stored axes are, a letter for each: ``Y``, ``X``, ``C`` (channels),
                ``Z`` (planes of a stack). By default what the file says.
            value_range: As for the class.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file cannot be decoded, or its pixel size is not known.
        """
        opened = open_levels(Path(path), channels, axes)
        scale = opened.mpp if mpp is None else mpp
        try:
            if scale is None:
                raise ValueError(
                    f"Expected OME metadata with the pixel size in {path}, found none; pass mpp=… "
                    "(µm per pixel)"
                )
            image = cls(
                opened.levels,
                mpp=scale,
                origin_um=origin_um,
                value_range=value_range,
                path=path,
                axes=axes,
            )
        except ValueError:
            opened.close()
            raise
        weakref.finalize(image, opened.close)
        warn_of_scales(image.mpp, opened.mpp, Path(path).name)
        image.channel_names = _kept(opened.channel_names, image.channels)
        image._reopen = partial(_opened_again, Path(path), channels, axes)
        return image

    @property
    def _levels(self) -> list[Level]:
        """Levels by files that are this process's own.

        A file that was open before a fork shares its position with the parent and with the other
        workers of a loader, which would read each other's pixels.
        """
        if self._reopen is not None and self._process != os.getpid():
            self._opened, self._process = self._reopen(), os.getpid()
        return self._opened

    @property
    def num_channels(self) -> int:
        """Number of channels, :math:`C`."""
        return self._levels[0].num_channels

    @property
    def channels(self) -> list[int] | None:
        """Channels of the file that are kept; ``None`` if these are all."""
        return self._levels[0].chosen

    @property
    def num_levels(self) -> int:
        """Number of resolutions stored."""
        return len(self._levels)

    @property
    def coarsest_size(self) -> int:
        """Number of pixels of the coarsest level, which a thumbnail reads at most."""
        return self._levels[-1].height * self._levels[-1].width

    @property
    def extent_um(self) -> tuple[float, float, float, float]:
        """Smallest and largest coordinates covered, ``(x0, y0, x1, y1)`` in µm."""
        x, y = self.origin_um
        full = self._levels[0]
        return (x, y, x + full.width * self.mpp, y + full.height * self.mpp)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height and width of the finest level in pixels, and channels, ``(H, W, C)``."""
        return (self._levels[0].height, self._levels[0].width, self.num_channels)

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored pixels."""
        return self._levels[0].dtype

    def pixels(self, rows: slice, columns: slice) -> np.ndarray:
        """Stored pixels of a window of the finest level, ``[h, w, C]``, as they are.

        Raises:
            ValueError: If they cannot be decoded.
        """
        return self._levels[0].read(rows, columns)

    def check_pixels(self) -> None:
        """Decode every stored pixel once, so that later work cannot come upon damage.

        Takes as long as reading the file; a block of chunks is in memory at a time.

        Raises:
            ValueError: If some cannot be decoded.
        """
        for level in self._levels:
            step = [-(-_CHECKED // side) * side for side in level.chunk]
            for top in range(0, level.height, step[0]):
                rows = slice(top, min(top + step[0], level.height))
                for left in range(0, level.width, step[1]):
                    level.read(rows, slice(left, min(left + step[1], level.width)))

    def dark_channels(self) -> list[str]:
        """Channels that show next to nothing, by name, with the values they hold.

        Such are black or saturated everywhere, or hold the noise of a camera alone: a model trains
        on them all the same. Few nuclei on black are something. No channel is one if
        :attr:`value_range` was given.
        """
        if self._is_given:
            return []
        found = self._seen  # [C, 2]
        if found is None:
            found = values_seen(self._levels, self.mpp * self._downsample)
        numbers = self.channels or range(self.num_channels)
        names = self.channel_names or [f"channel {c}" for c in numbers]
        top = np.iinfo(self.dtype).max if self.dtype.kind in "iu" else np.inf
        fewest = FEWEST_VALUES if self.dtype.kind in "iu" else 0
        dark = [
            f"{name} holds {low:g} alone" if low == high else f"{name} holds {low:g} to {high:g}"
            for name, (low, high) in zip(names, found, strict=True)
            if 0 < high - low < fewest or (low == high and low in (0, top))
        ]
        is_part = self._levels[0].is_color and len(dark) < self.num_channels  # a stain in one hue
        return [] if is_part else dark

    def covers(self, pos: np.ndarray) -> np.ndarray:
        """Mask of positions that lie on the image.

        Args:
            pos: Positions in µm, ``[N, 2]`` as (x, y).

        Returns:
            ``[N]`` bool.
        """
        pos = _positions(pos)
        x0, y0, x1, y1 = self.extent_um
        return np.all((pos >= (x0, y0)) & (pos < (x1, y1)), axis=1)

    def crops(
        self,
        pos: np.ndarray,
        window_um: float | np.ndarray,
        size_px: int,
        progress: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Square windows centred on cells, resized to one size.

        Read from the coarsest level that still has ``size_px`` pixels in the window, then averaged
        over areas (or interpolated, if even the finest level has fewer). Each stored chunk is read
        at most once, and besides the result only one block of chunks is in memory. Windows are
        snapped to whole pixels of the level, so a cell is at most half such a pixel off the middle;
        a cell at the centre of a pixel lands in crop pixel ``size_px // 2`` if nothing is resized.

        Args:
            pos: Cell centres in µm, ``[N, 2]`` as (x, y).
            window_um: Side of the window in µm, one for all or ``[N]``.
            size_px: Side of the crops in pixels, :math:`S`.
            progress: Whether to show a progress bar.

        Returns:
            Crops ``[N, C, S, S]``, float32 in [0, 1], 0 outside the image; and a mask ``[N]``,
            false where the cell itself lies outside the image. Such crops are all zero.

        Raises:
            ValueError: If a window is not positive or smaller than a pixel, or data is damaged.
        """
        pos, window = self._checked(pos, window_um, size_px)
        mask = self.covers(pos)
        out = np.zeros((len(pos), self.num_channels, size_px, size_px), dtype=np.float32)
        for i, rows, center, side in self._by_level(pos, window, size_px):
            rows, center, side = rows[mask[rows]], center[mask[rows]], side[mask[rows]]
            if len(rows):
                level = self._levels[i]
                add_crops(out, rows, level, self.value_range, center, side, progress)
        return out, mask

    def windows(self, pos: np.ndarray, window_um: float | np.ndarray, size_px: int) -> np.ndarray:
        """Exact position of the windows that :meth:`crops` reads, snapped to whole pixels.

        Args:
            pos: Cell centres in µm, ``[N, 2]`` as (x, y).
            window_um: Side of the window in µm, one for all or ``[N]``.
            size_px: Side of the crops in pixels.

        Returns:
            x and y of the outer corner of each crop's first pixel and its side, in µm, ``[N, 3]``.

        Raises:
            ValueError: If a window is not positive or smaller than a pixel.
        """
        pos, window = self._checked(pos, window_um, size_px)
        out = np.empty((len(pos), 3))
        for i, rows, center, side in self._by_level(pos, window, size_px):
            mpp = self.mpp * self._downsample[i]
            corner, side = snapped_windows(center, side)
            out[rows] = np.c_[corner[:, ::-1] * mpp + self.origin_um, side * mpp]
        return out

    def _by_level(
        self, pos: np.ndarray, window: np.ndarray, size_px: int
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Windows of each level: its number, rows, centres (row, column) and sides in pixels."""
        # a level is fine enough if its pixels are no larger than those of the crop
        finest = self.mpp * self._downsample  # [L]
        chosen = np.searchsorted(finest, window / size_px * (1 + 1e-6), side="right") - 1
        chosen = np.maximum(chosen, 0)
        for i in range(len(finest)):
            rows = np.flatnonzero(chosen == i)
            center = (pos[rows, ::-1] - self.origin_um[::-1]) / finest[i]  # row, column
            yield i, rows, center, window[rows] / finest[i]

    def _checked(
        self, pos: np.ndarray, window_um: float | np.ndarray, size_px: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions and the window of each."""
        pos = _positions(pos)
        window = np.asarray(window_um, dtype=np.float64)
        if window.ndim and window.shape != (len(pos),):
            raise ValueError(
                f"Expected 'window_um' as a number or one per cell, got shape {window.shape} for "
                f"{len(pos)} cells"
            )
        window = np.broadcast_to(window, len(pos))
        if size_px < 1:
            raise ValueError(f"Expected 'size_px' of at least 1, got {size_px}")
        wrong = np.flatnonzero(~(np.isfinite(window) & (window >= self.mpp)))
        if len(wrong):
            raise ValueError(
                f"Expected windows of at least one pixel ({self.mpp:g} µm), got "
                f"{window[wrong[0]]:g} for cell {wrong[0]}; 'window_um' is in µm"
            )
        return pos, window

    def thumbnail(self, max_px: int = 1024) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        """The whole image, small enough to plot.

        One channel is shown in grey, two as magenta and green, and of more than three the first
        three.

        Args:
            max_px: Longest side of the thumbnail in pixels.

        Returns:
            ``[h, w, 3]`` uint8, and the area it covers, ``(x0, y0, x1, y1)`` in µm.
        """
        if max_px < 1:
            raise ValueError(f"Expected 'max_px' of at least 1, got {max_px}")
        fine = [lv for lv in self._levels if max(lv.height, lv.width) >= max_px]
        level = fine[-1] if fine else self._levels[0]
        shrink = max(1.0, max(level.height, level.width) / max_px)
        shape = [max(1, round(n / shrink)) for n in (level.height, level.width)]
        across = area_weights(level.width, shape[1], 0, level.width)
        low, high = self.value_range[:3].T
        out = np.zeros((*shape, 3), dtype=np.float32)
        # strips of whole chunks, so that an image without pyramid need not fit in memory
        strip = -(-512 // level.chunk[0]) * level.chunk[0]
        for top in range(0, level.height, strip):
            bottom = min(top + strip, level.height)
            pixels = level.read(slice(top, bottom), slice(0, level.width))[..., :3]
            down = area_weights(level.height, shape[0], top, bottom)
            for c in range(pixels.shape[-1]):
                scaled = np.clip((pixels[..., c] - low[c]) / (high[c] - low[c]), 0, 1)
                out[..., c] += down @ (across @ scaled.astype(np.float32).T).T
        if self.num_channels == 1:
            out[:] = out[..., :1]
        elif self.num_channels == 2:
            out[..., 2] = out[..., 0]
        return np.round(255 * out).astype(np.uint8), self.extent_um

    def __repr__(self) -> str:
        full = self._levels[0]
        return (
            f"SlideImage({full.height} x {full.width} px, {self.num_channels} channels, "
            f"{self.num_levels} levels, mpp={self.mpp:g}, origin_um={self.origin_um})"
        )


def _positions(pos: np.ndarray) -> np.ndarray:
    pos = np.asarray(pos, dtype=np.float64)
    if pos.ndim != 2 or pos.shape[1] != 2:
        raise ValueError(f"Expected 'pos' of shape [N, 2] in µm, got {pos.shape}")
    return pos


def _kept(names: tuple[str, ...], channels: list[int] | None) -> tuple[str, ...]:
    """Names of the channels that are kept."""
    if channels is None or not names:
        return names
    return tuple(names[c] for c in channels if c < len(names))


def _opened_again(path: Path, channels: Sequence[int] | None, axes: str | None) -> list[Level]:
    with warnings.catch_warnings():  # said when it was opened first
        warnings.simplefilter("ignore", UserWarning)
        return open_levels(path, channels, axes).levels


def _downsampling(levels: list[Level], name: str) -> np.ndarray:
    """How many pixels of the finest level make one of each level, ``[L]``."""
    full = levels[0]
    factors = []
    for level in levels:
        ratio = np.array([full.height / level.height, full.width / level.width])
        # pyramids round odd sizes up or down; their true factor is a whole number, mostly 2^l
        for whole in (2.0 ** np.round(np.log2(ratio.mean())), max(1.0, np.round(ratio.mean()))):
            size = np.array([full.height, full.width]) / whole
            if (np.abs(size - (level.height, level.width)) < 1).all():
                ratio[:] = whole
                break
        if abs(ratio[0] / ratio[1] - 1) > 0.02 or level.num_channels != full.num_channels:
            raise ValueError(
                f"Expected the levels of {name} to show one area with the same channels, got "
                f"{[(v.height, v.width, v.num_channels) for v in levels]}"
            )
        factors.append(float(ratio.mean()))
    if (np.diff(factors) <= 0).any():
        raise ValueError(
            f"Expected the levels of {name} from fine to coarse, got "
            f"{[(v.height, v.width) for v in levels]}"
        )
    return np.array(factors)
