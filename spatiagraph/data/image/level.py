"""One resolution of a slide image, read lazily as ``[rows, columns, channels]``."""

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from spatiagraph._reasons import reason


class LazyArray(Protocol):
    """Array that reads what is sliced from it: numpy, Zarr, dask, HDF5."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, key: tuple[slice, ...], /) -> Any: ...


DAMAGED = (
    OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError, AttributeError,
    ArithmeticError, EOFError, MemoryError, zlib.error, struct.error,
)  # fmt: skip
"""Errors of decoders on damaged data: imagecodecs sub-classes of RuntimeError, zarr of ValueError,
the file system of OSError. tifffile and Pillow compute with tags as they come, of whatever type."""


class Level:
    """Array of any axis order as an image ``[H, W]`` or ``[H, W, C]``.

    Args:
        array: Stored array.
        axes: One letter per axis: ``Y``, ``X``, ``C`` or ``S`` (channels), ``Z`` (reduced by
            maximum projection when read), others must have length 1.
        name: What to call the image in errors.
        channels: Channels to keep; all by default.

    Raises:
        ValueError: If the axes are not those of an image, or a channel does not exist.
    """

    def __init__(
        self, array: LazyArray, axes: str, name: str, channels: Sequence[int] | None = None
    ):
        sizes = dict(zip(axes, array.shape, strict=False))
        if 0 in array.shape or np.dtype(array.dtype).kind not in "biuf":
            raise ValueError(
                f"Expected {name} to hold pixels that are real numbers, got {array.dtype} of shape "
                f"{tuple(array.shape)}"
            )
        extra = {a: n for a, n in sizes.items() if a not in "YXCSZ" and n > 1}
        if len(axes) != len(array.shape) or not {"Y", "X"} <= sizes.keys() or extra:
            raise ValueError(
                f"Expected {name} to have axes Y and X, and C, S or Z besides, got {axes!r} of "
                f"shape {tuple(array.shape)}; pass an array of [H, W] or [H, W, C], or "
                'say what the axes are: axes="CYX" in SlideImage.open'
            )
        channel_axes = [a for a in "CS" if sizes.get(a, 1) > 1]
        if len(channel_axes) > 1:
            raise ValueError(
                f"Expected {name} to have one channel axis, got C={sizes['C']} and S={sizes['S']}"
            )
        self._array, self._axes, self._name = array, axes, name
        self._channel_axis = channel_axes[0] if channel_axes else None
        stored = sizes[self._channel_axis] if self._channel_axis else 1
        self._channels = list(range(stored) if channels is None else channels)
        wrong = [c for c in self._channels if not 0 <= c < stored]
        if wrong or not self._channels:
            raise ValueError(f"Expected channels of {name} in [0, {stored}), got {self._channels}")
        self.chosen = None if self._channels == list(range(stored)) else self._channels
        # samples of one picture (and its alpha), not stains
        self.is_color = self._channel_axis == "S" and stored in (3, 4)
        self.height, self.width = sizes["Y"], sizes["X"]
        self.num_channels = len(self._channels)
        self.dtype = np.dtype(array.dtype)
        self.in_memory = isinstance(array, np.ndarray)  # or mapped into it
        chunks = getattr(array, "chunks", None)
        if chunks and isinstance(chunks[0], tuple):  # dask: all chunk sizes of each axis
            chunks = [c[0] for c in chunks]
        chunk = dict(zip(axes, chunks, strict=True)) if chunks else {}
        self.chunk = (int(chunk.get("Y", 1)), int(chunk.get("X", 1)))

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """Pixels of a window inside the image, ``[h, w, C]``.

        Raises:
            ValueError: If the stored data cannot be decoded.
        """
        key = tuple({"Y": rows, "X": columns}.get(a, slice(None)) for a in self._axes)
        try:
            pixels = np.asarray(self._array[key])
        except DAMAGED as err:
            raise ValueError(
                f"Expected {self._name} to be readable, but rows {rows.start}-{rows.stop}, columns "
                f"{columns.start}-{columns.stop} cannot be decoded ({reason(err)}). Is the file "
                "damaged or incomplete?"
            ) from err
        axes = self._axes
        if "Z" in axes:
            pixels = pixels.max(axes.index("Z"))
            axes = axes.replace("Z", "")
        order = [axes.index(a) for a in ("Y", "X", self._channel_axis) if a]
        rest = [i for i in range(len(axes)) if i not in order]  # all of length 1
        pixels = pixels.transpose(order + rest).reshape(*(pixels.shape[i] for i in order[:2]), -1)
        return pixels if self.chosen is None else pixels[..., self._channels]


class OpenImage(NamedTuple):
    """Image file that is open.

    Attributes:
        levels: From fine to coarse.
        mpp: µm per pixel, if the file says so.
        close: Closes the file.
        channel_names: Names of all stored channels, in their order; empty if there are none.
    """

    levels: list[Level]
    mpp: float | None
    close: Callable[[], object] = tuple  # nothing to close
    channel_names: tuple[str, ...] = ()


def undecodable(path: Path, err: Exception) -> ValueError:
    """Message about a file that is no image, or a damaged one."""
    return ValueError(
        f"Expected an image that can be decoded, got {path} ({reason(err)}). Is the file "
        "damaged, incomplete or not an image?"
    )


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Name a file that a library falls over; only for its calls, not for code of our own.

    Args:
        path: The file.

    Raises:
        ValueError: It cannot be decoded.
    """
    try:
        yield
    except DAMAGED as err:
        raise undecodable(path, err) from err
