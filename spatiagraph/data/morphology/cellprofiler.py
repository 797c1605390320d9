"""Features of the object in each crop by the names that CellProfiler gives them."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from rich.progress import track
from torch import Tensor

from spatiagraph.data.morphology.measure import objects_of

SHAPES = (
    "Area", "BoundingBoxArea", "Compactness", "ConvexArea", "Eccentricity", "EquivalentDiameter",
    "EulerNumber", "Extent", "FormFactor", "MajorAxisLength", "MaxFeretDiameter", "MaximumRadius",
    "MeanRadius", "MedianRadius", "MinorAxisLength", "Perimeter", "Solidity",
    *(f"HuMoment_{i}" for i in range(7)),
)  # fmt: skip
INTENSITIES = (
    "IntegratedIntensity", "IntegratedIntensityEdge", "LowerQuartileIntensity", "MADIntensity",
    "MassDisplacement", "MaxIntensity", "MaxIntensityEdge", "MeanIntensity", "MeanIntensityEdge",
    "MedianIntensity", "MinIntensity", "MinIntensityEdge", "StdIntensity", "StdIntensityEdge",
    "UpperQuartileIntensity",
)  # fmt: skip
TEXTURES = {
    "AngularSecondMoment": "ASM",
    "Contrast": "contrast",
    "Correlation": "correlation",
    "Entropy": "entropy",
    "InverseDifferenceMoment": "homogeneity",
    "Variance": "variance",
}
_ANGLES = np.arange(4) * np.pi / 4
_GRANULARITY = 8


def cellprofiler_names(
    channels: Sequence[str], *, texture_scale: int = 3, gray_levels: int = 32
) -> list[str]:
    """Columns of :func:`measure_cellprofiler`.

    Args:
        channels: Names of the image channels.
        texture_scale: Distance of the pixels that are compared.
        gray_levels: Grey values that are told apart.

    Examples:
        >>> names = cellprofiler_names(["DNA"])
        >>> len(names), names[0], names[-1]
        (71, 'AreaShape_Area', 'Granularity_8_DNA')
    """
    names = [f"AreaShape_{name}" for name in SHAPES]
    for channel in channels:
        names += [f"Intensity_{name}_{channel}" for name in INTENSITIES]
        names += [
            f"Texture_{name}_{channel}_{texture_scale}_{angle:02d}_{gray_levels}"
            for name in TEXTURES
            for angle in range(len(_ANGLES))
        ]
        names += [f"Granularity_{i}_{channel}" for i in range(1, _GRANULARITY + 1)]
    return names


def measure_cellprofiler(
    images: ArrayLike | Tensor,
    *,
    mpp: float | ArrayLike,
    channels: Sequence[str] | None = None,
    foreground: Literal["bright", "dark", "mask"] = "bright",
    masks: ArrayLike | Tensor | None = None,
    component: Literal["largest", "center"] = "largest",
    texture_scale: int = 3,
    gray_levels: int = 32,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure one object in each image as CellProfiler does: shape, intensity, texture, grains.

    The features of `CellProfiler <https://doi.org/10.1186/s12859-021-04344-9>`_ that
    `scikit-image <https://scikit-image.org>`_ has, by its names. The object is that of
    :func:`measure_morphology`: one for all channels, found in their mean.

    =============== ==================================================================
    ``AreaShape``   24 of the outline, lengths in µm and areas in µm² (with ``mpp=1`` in pixels, as
                    CellProfiler has them), and the seven moments of Hu
    ``Intensity``   15 of the grey values of each channel inside, and along the inner edge
    ``Texture``     six of Haralick's thirteen in four directions, of pixels ``texture_scale`` apart
                    that both lie inside
    ``Granularity`` eight steps of the spectrum of openings by reconstruction, in percent of the
                    channel's mean inside
    =============== ==================================================================

    Unlike in CellProfiler grey values are of ``gray_levels`` for textures, 32 and not 256, for
    small crops fill no table of 256 × 256; and no background is taken off before grains are
    measured, for a crop shows little more than its object. Left out are the sums and differences
    of Haralick, Zernike's moments and radial distributions, which scikit-image has not.

    Args:
        images: ``[N, C, H, W]`` in [0, 1].
        mpp: µm per pixel, one for all or ``[N]``.
        channels: Names of the channels, ``"Ch1"``, ``"Ch2"``, … by default.
        foreground: As in :func:`measure_morphology`.
        masks: As in :func:`measure_morphology`.
        component: As in :func:`measure_morphology`.
        texture_scale: Distance in pixels.
        gray_levels: From black to white.
        progress: Whether to show a progress bar.

    Returns:
        One row per image and the columns :func:`cellprofiler_names`, float64: 24 and 47 per
        channel. A row of NaN where there is nothing to measure, or less than has a perimeter.

    Raises:
        ValueError: Images or masks are of another shape or have values that they must not, or
            there is no name for each channel.

    Examples:
        >>> x, y = np.mgrid[:32, :32] - 15.5
        >>> disc = (np.hypot(x, y) < 10).astype(float)
        >>> table = measure_cellprofiler(disc[None, None], mpp=0.5)
        >>> table[["AreaShape_Area", "Intensity_MeanIntensity_Ch1"]].round(1).to_numpy()
        array([[79.,  1.]])
    """
    found = objects_of(images, mpp=mpp, foreground=foreground, masks=masks, component=component)
    x = images.detach().float().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    named = [f"Ch{i + 1}" for i in range(x.shape[1])] if channels is None else list(channels)
    if len(named) != x.shape[1]:
        raise ValueError(f"Expected names of {x.shape[1]} channels, got {named}")
    if texture_scale < 1 or gray_levels < 2:
        raise ValueError(
            "Expected a 'texture_scale' of at least 1 and 'gray_levels' of at least 2, got "
            f"{texture_scale} and {gray_levels}"
        )
    names = cellprofiler_names(named, texture_scale=texture_scale, gray_levels=gray_levels)
    table = np.full((len(x), len(names)), np.nan)
    for i, mask in track(
        found.masks, description="Measuring", total=len(x), disable=not progress, transient=True
    ):
        shape = _shape(mask, found.scale[i]) if mask.any() else None
        if shape is None:
            continue
        row = shape
        for channel in x[i].astype(np.float64):
            row += _intensity(mask, channel, found.scale[i])
            row += _texture(mask, channel, texture_scale, gray_levels)
            row += _granularity(mask, channel)
        table[i] = row
    return pd.DataFrame(table, columns=names)


def _shape(mask: NDArray[np.bool_], mpp: float) -> list[float] | None:
    """Features of :data:`SHAPES`; none of an object without perimeter."""
    from scipy.ndimage import distance_transform_edt
    from skimage.measure import regionprops  # slow to import, and only needed here

    (region,) = regionprops(mask.astype(np.uint8))
    if not region.perimeter:
        return None
    roundness = 4 * np.pi * region.area / region.perimeter**2
    radius = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1][mask]
    return [
        region.area * mpp**2,
        region.area_bbox * mpp**2,
        1 / roundness,
        region.area_convex * mpp**2,
        region.eccentricity,
        region.equivalent_diameter_area * mpp,
        region.euler_number,
        region.extent,
        roundness,
        region.axis_major_length * mpp,
        region.feret_diameter_max * mpp,
        radius.max() * mpp,
        radius.mean() * mpp,
        float(np.median(radius)) * mpp,
        region.axis_minor_length * mpp,
        region.perimeter * mpp,
        region.solidity,
        *region.moments_hu,
    ]


def _intensity(mask: NDArray[np.bool_], channel: NDArray[np.float64], mpp: float) -> list[float]:
    """Features of :data:`INTENSITIES`."""
    from skimage.segmentation import find_boundaries

    inside = channel[mask]
    edge = channel[find_boundaries(np.pad(mask, 1), mode="inner")[1:-1, 1:-1]]
    low, median, high = np.quantile(inside, [0.25, 0.5, 0.75])
    places = np.argwhere(mask)
    total = inside.sum()
    middle = (places * inside[:, None]).sum(axis=0) / total if total else places.mean(axis=0)
    return [
        total,
        edge.sum(),
        low,
        float(np.median(np.abs(inside - median))),
        float(np.linalg.norm(middle - places.mean(axis=0))) * mpp,
        inside.max(),
        edge.max(),
        inside.mean(),
        edge.mean(),
        median,
        inside.min(),
        edge.min(),
        inside.std(),
        edge.std(),
        high,
    ]


def _texture(
    mask: NDArray[np.bool_], channel: NDArray[np.float64], scale: int, levels: int
) -> list[float]:
    """Haralick's features of pairs of pixels inside, in the order of :data:`TEXTURES`."""
    from skimage.feature import graycomatrix, graycoprops

    # grey value 0 stands for the outside: its row and column are dropped
    grey = np.where(mask, 1 + np.rint(channel * (levels - 1)), 0).clip(0, levels)
    pairs = graycomatrix(grey.astype(np.uint16), [scale], _ANGLES, levels + 1, symmetric=True)
    inner = pairs[1:, 1:].astype(np.float64)
    values = {name: graycoprops(inner, prop)[0] for name, prop in TEXTURES.items()}
    values["Entropy"] = values["Entropy"] / np.log(2)  # bits
    return np.concatenate(list(values.values())).tolist()


def _granularity(mask: NDArray[np.bool_], channel: NDArray[np.float64]) -> list[float]:
    """How much of the channel inside every wider opening by reconstruction takes away."""
    from skimage.morphology import disk, erosion, reconstruction

    start = before = channel[mask].mean()
    if start <= 0:
        return [0.0] * _GRANULARITY
    eroded, spectrum = channel, []
    for _ in range(_GRANULARITY):
        eroded = erosion(eroded, disk(1))
        after = reconstruction(eroded, channel)[mask].mean()
        spectrum.append(100 * (before - after) / start)
        before = after
    return spectrum
