"""Pixel values that become 0 and 1 in crops: one choice per channel for all crops of an image."""

from typing import NamedTuple

import numpy as np

from spatiagraph.data.image.level import Level

_MAX_SAMPLE = 2**24  # pixels looked at
_BANDS = 16  # of rows, where a level has more pixels than that
_RESOLVED_UM = 2.0  # pixels in which nuclei are still seen; coarser ones average them away
_BRIGHT = 0.25  # of white: median of a picture taken in white light; stains glow on black
_ABOVE = 0.4  # of the values between the darkest and the brightest: median of such, over channels
_WHITES = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits
FEWEST_VALUES = 4
"""Levels of grey below which a channel shows nothing: the noise of a camera has as many."""


class ValueRange(NamedTuple):
    """Values of an image.

    Attributes:
        ends: Values that become 0 and 1, per channel, ``[C, 2]``.
        seen: Smallest and largest values among the pixels that were looked at, ``[C, 2]``; ``None``
            if none were.
    """

    ends: np.ndarray
    seen: np.ndarray | None = None


def value_range_of(
    levels: list[Level],
    mpp: np.ndarray,
    given: tuple[float, float] | np.ndarray | None,
    name: str,
) -> ValueRange:
    """Values that become 0 and 1, per channel.

    Pictures in white light (three channels, bright where there is no tissue, as H&E) keep their
    white: 255, or the largest value of as many bits as they hold. Stains do not: a DAPI of 8 or 16
    bits may use a tenth of its range, so the 0.1 and 99.9 percentiles of each channel count, where
    a level shows nuclei and is small. Where these are noise alone, the brightest pixel counts.

    Args:
        levels: From fine to coarse.
        mpp: µm per pixel of each level, ``[L]``.
        given: Range that was given: a pair, or ``[C, 2]``.
        name: What to call the image in errors.

    Raises:
        ValueError: ``given`` has another shape or is no range, or a pixel is not finite.
    """
    channels = levels[0].num_channels
    if given is not None:
        asked = np.asarray(given, dtype=np.float64)
        if asked.shape not in ((2,), (channels, 2)) or not (asked[..., 0] < asked[..., 1]).all():
            raise ValueError(
                f"Expected 'value_range' as (low, high) or [{channels}, 2], got {given}"
            )
        ends = np.broadcast_to(asked, (channels, 2)).copy()
        return ValueRange(_as_float32_range(ends, "'value_range'", name))
    if levels[0].dtype == np.bool_:
        return ValueRange(np.tile([0.0, 1.0], (channels, 1)))
    is_byte = levels[0].dtype == np.uint8
    if is_byte and levels[0].is_color:
        return ValueRange(np.tile([0.0, 255.0], (channels, 1)))
    level = levels[_resolved(mpp)]
    pixels = _sample(level)
    if not np.isfinite(pixels).all():
        raise ValueError(f"Expected finite pixel values in {name}, got NaN or infinity")
    seen = _extent(pixels, level)
    low, middle, high = np.percentile(pixels, [0.1, 50, 99.9], axis=0)  # [C]
    if channels == 3 or levels[0].is_color:
        white = 255.0 if is_byte else _white(high.max(), levels[0].dtype)
        is_bright = middle.min() >= _BRIGHT * white
        above = (middle - low) / np.maximum(high - low, 1e-30)
        if is_bright and (is_byte or above.mean() >= _ABOVE):
            return ValueRange(np.tile([0.0, white], (channels, 1)), seen)
    is_noise = high - low < (FEWEST_VALUES if pixels.dtype.kind in "iu" else 1e-30)
    high = np.where(is_noise, seen[:, 1], high)  # fewer than 0.1 % of the pixels glow
    least = low + np.maximum(1, 1e-6 * np.abs(low))  # of a channel that is the same everywhere
    found = np.stack([low, np.where(high > low, high, least)], axis=1)
    return ValueRange(_as_float32_range(found, "pixel values", name), seen)


def values_seen(levels: list[Level], mpp: np.ndarray) -> np.ndarray:
    """Smallest and largest values of the coarsest level that shows nuclei, ``[C, 2]``.

    Args:
        levels: From fine to coarse.
        mpp: µm per pixel of each level, ``[L]``.
    """
    level = levels[_resolved(mpp)]
    return _extent(_sample(level), level)


def _resolved(mpp: np.ndarray) -> int:
    """The coarsest level in which nuclei are still seen."""
    return int(np.flatnonzero(mpp <= max(_RESOLVED_UM, mpp[0]))[-1])


def _white(high: float, dtype: np.dtype) -> float:
    """Largest value of as many bits as the pixels hold; of fractions it may be 1."""
    whites = _WHITES if dtype.kind in "iu" else (1, *_WHITES)
    return float(next((white for white in whites if white >= high), high))


def _extent(pixels: np.ndarray, level: Level) -> np.ndarray:
    """Smallest and largest values of each channel, ``[C, 2]``.

    A few nuclei in a large image may lie between the rows of a sample: where it shows next to
    nothing, the level is read until something shows.
    """
    seen = np.stack([pixels.min(axis=0), pixels.max(axis=0)], axis=1).astype(np.float64)
    fewest = FEWEST_VALUES if level.dtype.kind in "iu" else np.finfo(np.float64).tiny
    if len(pixels) == level.height * level.width:
        return seen
    tall = max(level.chunk[0], _MAX_SAMPLE // (level.width * _BANDS))
    for top in range(0, level.height, tall):
        if (seen[:, 1] - seen[:, 0] >= fewest).all():
            break
        rows = slice(top, min(top + tall, level.height))
        strip = level.read(rows, slice(0, level.width)).reshape(-1, level.num_channels)
        seen[:, 0] = np.fmin(seen[:, 0], strip.min(axis=0))
        seen[:, 1] = np.fmax(seen[:, 1], strip.max(axis=0))
    return seen


def _as_float32_range(found: np.ndarray, what: str, name: str) -> np.ndarray:
    """A range whose ends the 32 bits of crops can hold, and hold apart.

    Raises:
        ValueError: They cannot.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        width = np.diff(found.astype(np.float32), axis=1)
    if not (np.isfinite(width) & (width > 0)).all():
        raise ValueError(
            f"Expected {what} of {name} that numbers of 32 bits can tell apart, got "
            f"{found.min():.9g} to {found.max():.9g}. Rescale the image"
        )
    return found


def _sample(level: Level) -> np.ndarray:
    """All pixels ``[n, C]``, or evenly spread bands of rows if they are too many."""
    tall = max(1, _MAX_SAMPLE // (level.width * _BANDS))
    bands = _BANDS if tall * _BANDS < level.height else 1
    tall = tall if bands > 1 else level.height
    starts = np.linspace(0, level.height - tall, bands).astype(int)
    parts = [level.read(slice(int(s), int(s) + tall), slice(0, level.width)) for s in starts]
    return np.concatenate(parts).reshape(-1, level.num_channels)
