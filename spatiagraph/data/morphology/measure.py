"""Shape and stain of the nucleus in each crop, as a pathologist would measure them."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from rich.progress import track
from scipy import ndimage
from torch import Tensor

MORPHOLOGY = (
    "area_um2", "perimeter_um", "eccentricity", "solidity", "intensity_mean", "intensity_max",
    "intensity_min", "intensity_std", "major_axis_um", "minor_axis_um",
)  # fmt: skip
"""Features that are measured, in the order of the columns."""
_BLOCK = 1024  # images whose components are found together
_WITHIN = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])  # not across images


def measure_morphology(
    images: ArrayLike | Tensor,
    *,
    mpp: float | ArrayLike,
    foreground: Literal["bright", "dark", "mask"] = "bright",
    masks: ArrayLike | Tensor | None = None,
    component: Literal["largest", "center"] = "largest",
    progress: bool = False,
) -> pd.DataFrame:
    """Measure one object in each image: its size, its shape, its grey values.

    Pixels beyond the threshold of Otsu (1979) are foreground, and of its connected components one
    is measured with `scikit-image <https://scikit-image.org>`_. Colours are averaged to grey. Crops
    that reach beyond the image show its edge, which may pass for an object: leave such cells out.

    Args:
        images: ``[N, C, H, W]`` in [0, 1].
        mpp: µm per pixel, one for all or ``[N]``.
        foreground: ``"bright"`` (DAPI) or ``"dark"`` (H&E) objects, or ``"mask"``: only where
            ``masks`` says so.
        masks: Segmentation, ``[N, H, W]``, preferred to the threshold wherever it is given: bool,
            or integers that tell touching objects apart, 0 outside of all.
        component: The ``"largest"`` one, or the one nearest to the ``"center"``, where crops show
            the neighbours of their cell.
        progress: Whether to show a progress bar.

    Returns:
        One row per image and a column for each of :data:`MORPHOLOGY`, float64: ``area_um2``,
        ``perimeter_um``, ``eccentricity``, ``solidity``, grey values in [0, 1] and both axes of the
        ellipse of the same moments in µm. An image in which there is nothing to measure (of one
        grey, or with an empty mask) is a row of NaN: ``table.notna().all(axis=1)`` tells which
        rows are valid.

    Raises:
        ValueError: Images or masks are of another shape, or have values that they must not.

    Examples:
        >>> x, y = np.mgrid[:32, :32] - 15.5
        >>> disc = (np.hypot(x, y) < 10).astype(float)
        >>> table = measure_morphology(disc[None, None], mpp=0.5)
        >>> table[["area_um2", "major_axis_um"]].round(1).to_numpy()
        array([[79., 10.]])
    """
    found = objects_of(images, mpp=mpp, foreground=foreground, masks=masks, component=component)
    grey = found.grey
    table = np.full((len(grey), len(MORPHOLOGY)), np.nan)
    for i, mask in track(
        found.masks, description="Measuring", total=len(grey), disable=not progress, transient=True
    ):
        if mask.any():
            table[i] = _measure(mask, grey[i], found.scale[i])
    return pd.DataFrame(table, columns=list(MORPHOLOGY))


class Objects(NamedTuple):
    """One object in each image.

    Attributes:
        grey: Mean over the channels, ``[N, H, W]``.
        scale: µm per pixel, ``[N]``.
        masks: Number of each image and the pixels of its object, ``[H, W]``, in order.
    """

    grey: NDArray[np.float32]
    scale: NDArray[np.float64]
    masks: Iterator[tuple[int, NDArray[np.bool_]]]


def objects_of(
    images: ArrayLike | Tensor,
    *,
    mpp: float | ArrayLike,
    foreground: str,
    masks: ArrayLike | Tensor | None,
    component: str,
) -> Objects:
    """Find the object that is measured in each image, see :func:`measure_morphology`.

    Args:
        images: ``[N, C, H, W]`` in [0, 1].
        mpp: µm per pixel, one for all or ``[N]``.
        foreground: ``"bright"``, ``"dark"`` or ``"mask"``.
        masks: Segmentation, ``[N, H, W]``.
        component: ``"largest"`` or ``"center"``.

    Raises:
        ValueError: An argument is none of these.
    """
    grey = _grey(images)
    if foreground not in ("bright", "dark", "mask"):
        raise ValueError(f"Expected 'foreground' bright, dark or mask, got {foreground!r}")
    if component not in ("largest", "center"):
        raise ValueError(f"Expected 'component' largest or center, got {component!r}")
    if foreground == "mask" and masks is None:
        raise ValueError("Expected 'masks' with foreground=\"mask\", got none")
    given = None if masks is None else _masks(masks, grey.shape)
    scale = np.asarray(mpp, dtype=np.float64)
    if scale.shape not in ((), (len(grey),)) or not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError(f"Expected 'mpp' as µm per pixel, one or {len(grey)}, got {mpp!r}")
    objects = _objects(grey, given, foreground == "dark", component)
    return Objects(grey, np.broadcast_to(scale, len(grey)), objects)


def _measure(mask: NDArray[np.bool_], grey: NDArray[np.float32], mpp: float) -> list[float]:
    """The features of one object, in the order of :data:`MORPHOLOGY`."""
    from skimage.measure import regionprops  # slow to import, and only needed here

    (region,) = regionprops(mask.astype(np.uint8))
    value = grey[mask].astype(np.float64)
    return [
        region.area * mpp**2,
        region.perimeter * mpp,
        region.eccentricity,
        region.solidity,
        value.mean(),
        value.max(),
        value.min(),
        value.std(),
        region.axis_major_length * mpp,
        region.axis_minor_length * mpp,
    ]


def _objects(
    grey: NDArray[np.float32],
    masks: NDArray | None,
    dark: bool,
    component: str,
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """The pixels of the object in each image, ``[H, W]``; none where there is none."""
    for start in range(0, len(grey), _BLOCK):
        block = grey[start : start + _BLOCK]
        if masks is None:
            labels = _components(_beyond_otsu(1 - block if dark else block))
        else:
            part = masks[start : start + _BLOCK]
            labels = _components(part) if part.dtype == bool else _numbered(part)
        wanted = _largest(labels) if component == "largest" else _central(labels)
        for i, (label, chosen) in enumerate(zip(labels, wanted, strict=True)):
            yield start + i, (label == chosen) & (label > 0)


def _beyond_otsu(grey: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels above the threshold of their image, ``[B, H, W]``; none where all are alike."""
    from skimage.filters import threshold_otsu

    varied = np.ptp(grey, axis=(1, 2)) > 0
    threshold = [threshold_otsu(x) if v else np.inf for x, v in zip(grey, varied, strict=True)]
    return grey > np.array(threshold)[:, None, None]


def _components(mask: NDArray[np.bool_]) -> NDArray[np.integer]:
    """Numbers of the connected components, which occur in one image each, 0 outside."""
    return ndimage.label(mask, structure=_WITHIN)[0]


def _numbered(masks: NDArray[np.integer]) -> NDArray[np.integer]:
    """Numbers of the objects, made to occur in one image each, 0 outside."""
    image = np.broadcast_to(np.arange(len(masks))[:, None, None], masks.shape)
    inside = masks > 0
    pairs = np.stack([image[inside], masks[inside]])
    labels = np.zeros(masks.shape, dtype=np.int64)
    labels[inside] = np.unique(pairs, axis=1, return_inverse=True)[1].ravel() + 1
    return labels


def _largest(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """The object with the most pixels in each image, ``[B]``; 0 where there is none."""
    size = np.bincount(labels.ravel())
    owner = np.zeros(len(size), dtype=np.int64)
    owner[labels] = np.arange(len(labels))[:, None, None]
    wanted = np.zeros(len(labels), dtype=np.int64)
    objects = np.arange(1, len(size))
    ordered = objects[np.argsort(size[1:], kind="stable")]
    wanted[owner[ordered]] = ordered  # the last one written is the largest
    return wanted


def _central(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """The object nearest to the centre of each image, ``[B]``; 0 where there is none."""
    rows, columns = (np.arange(side) - (side - 1) / 2 for side in labels.shape[1:])
    away = np.hypot(rows[:, None], columns)
    nearest = np.where(labels > 0, away, np.inf).reshape(len(labels), -1).argmin(axis=1)
    return labels.reshape(len(labels), -1)[np.arange(len(labels)), nearest]


def _grey(images: ArrayLike | Tensor) -> NDArray[np.float32]:
    """Mean over the channels, ``[N, H, W]``."""
    array = images.detach().float().cpu().numpy() if isinstance(images, Tensor) else images
    array = np.asarray(array)
    if array.ndim != 4 or not all(array.shape[1:]):
        raise ValueError(f"Expected 'images' of shape [N, C, H, W], got {list(array.shape)}")
    if array.dtype == np.uint8:
        raise ValueError("Expected 'images' in [0, 1], got 8-bit integers: divide them by 255")
    grey = array.mean(axis=1, dtype=np.float32)
    wrong = np.flatnonzero(~((grey >= -1e-6) & (grey <= 1 + 1e-6)).all(axis=(1, 2)))
    if len(wrong):
        raise ValueError(
            f"Expected 'images' in [0, 1], got other values in {len(wrong)} of {len(grey)} images "
            f"(first: {wrong[:5].tolist()}); those of a flow are in [-1, 1]"
        )
    return grey


def _masks(masks: ArrayLike | Tensor, shape: tuple[int, ...]) -> NDArray:
    """Masks as bool or integers, ``[N, H, W]``."""
    array = np.asarray(masks.cpu() if isinstance(masks, Tensor) else masks)
    if array.shape != shape or not (array.dtype == bool or np.issubdtype(array.dtype, np.integer)):
        raise ValueError(
            f"Expected 'masks' of bool or integers {list(shape)}, got {array.dtype} "
            f"{list(array.shape)}"
        )
    return array
