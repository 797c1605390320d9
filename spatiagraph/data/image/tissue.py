"""Tissue in an image, as far as brightness and colour separate it from glass."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from spatiagraph.data.image.slide_image import SlideImage

_SIDE_PX = 256
_LARGEST = 2**26  # pixels of the coarsest level, which has to be decoded whole
_COVERED = (0.01, 0.8)  # share of an image that is tissue, where there is glass to tell it from
_APART = 0.78  # of the variance, where tissue and glass are two groups and not one
_BRIGHT = 0.5  # median of a picture in white light
_GAP_UM = 50.0  # half the width of gaps that count as tissue
_PLAIN = 0.25  # of the range: glass is no more stained than that, and black glows no more


def tissue_share(image: SlideImage, pos: np.ndarray) -> float:
    """Share of positions that lie on tissue; NaN where the image does not show where it ends.

    Stained tissue is darker or more coloured than glass in white light, and glows on black.
    Brightness is smoothed over the gaps between nuclei and cut at Otsu's threshold ("A threshold
    selection method from gray-level histograms", https://doi.org/10.1109/TSMC.1979.4310076).

    Args:
        image: The image.
        pos: Places in µm, ``[N, 2]``.
    """
    found = _tissue(image)
    if found is None or not len(pos):
        return float("nan")
    return float(_at(ndimage.binary_dilation(found.mask, iterations=2), image, pos).mean())


def on_tissue(image: SlideImage, pos: np.ndarray) -> np.ndarray | None:
    """Positions that lie on tissue, ``[N]`` bool; ``None`` where the image does not show its end.

    Tissue is found as for :func:`tissue_share`, gaps between its nuclei included, and told from
    plain glass or black alone: two kinds of tissue in a picture without either are both tissue.

    Args:
        image: The image.
        pos: Places in µm, ``[N, 2]``.
    """
    found = _tissue(image)
    if found is None or found.beside > _PLAIN:
        return None
    x0, _, x1, _ = image.extent_um
    gap = max(2.0, _GAP_UM / (x1 - x0) * found.mask.shape[1])
    wide = ndimage.distance_transform_edt(~found.mask) <= gap
    closed = wide if wide.all() else ndimage.distance_transform_edt(wide) > gap
    return _at(closed | found.mask, image, pos)


def _at(mask: np.ndarray, image: SlideImage, pos: np.ndarray) -> np.ndarray:
    """Values of a mask of the image at positions, ``[N]`` bool; false outside."""
    x0, y0, x1, y1 = image.extent_um
    height, width = mask.shape
    column = np.floor((pos[:, 0] - x0) / (x1 - x0) * width).astype(np.int64)
    row = np.floor((pos[:, 1] - y0) / (y1 - y0) * height).astype(np.int64)
    found = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    found[found] = mask[row[found], column[found]]
    return found


class _Tissue(NamedTuple):
    """Tissue of an image, and what is beside it.

    Attributes:
        mask: Where tissue is, ``[h, w]`` bool, of at most 256 pixels.
        beside: Mean stain or glow of the rest, between 0 and 1.
    """

    mask: np.ndarray
    beside: float


def _tissue(image: SlideImage) -> _Tissue | None:
    if image.coarsest_size > _LARGEST:
        return None
    pixels = image.thumbnail(_SIDE_PX)[0].astype(np.float32) / 255  # [h, w, 3]
    is_bright = np.median(pixels) > _BRIGHT
    if is_bright and image.num_channels != 3:  # a stain that fills its range, or no colour to tell
        return None
    stained = 1 - pixels.min(axis=2) if is_bright else pixels.max(axis=2)
    smooth = ndimage.uniform_filter(stained, 5)
    mask = smooth > _otsu(smooth)
    low, high = _COVERED
    if not low <= mask.mean() <= high or _explained(smooth, mask) < _APART:
        return None
    return _Tissue(mask, float(smooth[~mask].mean()))


def _explained(values: np.ndarray, mask: np.ndarray) -> float:
    """Share of the variance that two groups explain: 0.75 of values that are spread evenly."""
    share = mask.mean()
    between = share * (1 - share) * (values[mask].mean() - values[~mask].mean()) ** 2
    return float(between / values.var())


def _otsu(values: np.ndarray) -> float:
    """Threshold between two groups of values that differ most from each other."""
    count, edges = np.histogram(values, bins=64)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(count)[:-1]
    above = below[-1] + count[-1] - below
    total = np.cumsum(count * middle)
    mean_below = total[:-1] / np.maximum(below, 1)
    mean_above = (total[-1] - total[:-1]) / np.maximum(above, 1)
    return float(edges[1 + int(np.argmax(below * above * (mean_above - mean_below) ** 2))])
