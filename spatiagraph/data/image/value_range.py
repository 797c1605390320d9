"""Pixel values that become 0 and 1 in crops: one choice per channel for all crops of an image."""

from typing import NamedTuple

import numpy as np

from spatiagraph.data.image.level import Level

_MAX_SAMPLE = 2**24  # pixels looked at
_BANDS = 16  # of rows, where a level has more pixels than that
_RESOLVED_UM = 2.0  # pixels in which nuclei are still seen; coarser ones average them away
_BRIGHT = 64  # median of a picture taken in white light; stains glow on black


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

    Pictures in colour (8 bit, three channels, as H&E) keep their values: 0 to 255. Stains do not:
    a DAPI of 8 or 16 bits may use a tenth of its range, so the 0.1 and 99.9 percentiles of each
    channel count, where a level shows nuclei and is small.

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
    fine_enough = np.flatnonzero(mpp <= max(_RESOLVED_UM, mpp[0]))
    pixels = _sample(levels[fine_enough[-1]])
    if not np.isfinite(pixels).all():
        raise ValueError(f"Expected finite pixel values in {name}, got NaN or infinity")
    seen = np.stack([pixels.min(axis=0), pixels.max(axis=0)], axis=1).astype(np.float64)
    if is_byte and channels == 3 and np.median(pixels, axis=0).min() >= _BRIGHT:
        return ValueRange(np.tile([0.0, 255.0], (channels, 1)), seen)
    low, high = np.percentile(pixels, [0.1, 99.9], axis=0)  # [C]
    high = np.where(high > low, high, pixels.max(axis=0))  # fewer than 0.1 % of the pixels glow
    above = low + np.maximum(1, 1e-6 * np.abs(low))  # of a channel that is the same everywhere
    found = np.stack([low, np.where(high > low, high, above)], axis=1)
    return ValueRange(_as_float32_range(found, "pixel values", name), seen)


def values_seen(levels: list[Level]) -> np.ndarray:
    """Smallest and largest values of the coarsest level, ``[C, 2]``."""
    pixels = _sample(levels[-1])
    return np.stack([pixels.min(axis=0), pixels.max(axis=0)], axis=1).astype(np.float64)


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
