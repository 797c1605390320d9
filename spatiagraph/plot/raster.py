"""Maps of more cells than can be drawn: counted per pixel, and the commonest group shown."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from numpy.typing import NDArray

from spatiagraph.plot.canvas import add_scale_bar, clear_frame, new_axes

MAX_PX = 900
"""Longest side of a map in pixels."""
_SIDE = 5.0  # inches
_FAINT = 0.35  # opacity of a pixel with a single cell where others hold many


class Raster(NamedTuple):
    """Cells of a slide, counted per pixel.

    Attributes:
        group: Commonest group of the cells of each pixel, ``[H, W]``; -1 where there is none.
        num_cells: Cells of each pixel, ``[H, W]``.
        pixel_um: Side of a pixel in µm.
        origin_um: x and y of the first corner in µm.
    """

    group: NDArray[np.int64]
    num_cells: NDArray[np.int64]
    pixel_um: float
    origin_um: tuple[float, float]


def rasterize(
    pos: NDArray[np.floating], group: NDArray[np.integer], max_px: int = MAX_PX
) -> Raster:
    """Count cells by pixel and group; memory is that of pixels and groups, not of discs.

    Args:
        pos: Cell centres in µm, ``[N, 2]``.
        group: Group of each cell, ``[N]`` from 0; cells of -1 are not drawn.
        max_px: Longest side in pixels.

    Raises:
        ValueError: There is no cell, or not a group for each.

    Examples:
        >>> cells = np.array([[0.0, 0.0], [0.1, 0.0], [0.2, 0.1], [9.0, 9.0]])
        >>> rasterize(cells, np.array([1, 0, 1, 0]), max_px=2).group.tolist()
        [[1, -1], [-1, 0]]
    """
    if len(pos) == 0 or pos.shape != (len(group), 2) or max_px < 1:
        raise ValueError(
            f"Expected positions [N, 2] of at least one cell, a group of each and pixels, got "
            f"{list(pos.shape)}, {len(group)} groups and max_px={max_px}"
        )
    low = pos.min(0)
    pixel = max(float(np.ptp(pos, axis=0).max()) / max_px, 1e-6)
    place = np.minimum(((pos - low) / pixel).astype(np.int64), max_px - 1)
    width, height = (place.max(0) + 1).tolist()
    shown = group >= 0
    number = place[shown, 1] * width + place[shown, 0]
    num_groups = int(group.max(initial=0)) + 1
    best = np.full(width * height, -1, dtype=np.int64)
    most = np.zeros(width * height, dtype=np.int64)
    count = np.zeros(width * height, dtype=np.int64)
    for each in range(num_groups):  # a group at a time: no table of pixels by groups
        of_group = np.bincount(number[group[shown] == each], minlength=width * height)
        better = of_group > most
        best[better], most[better] = each, of_group[better]
        count += of_group
    shape = (height, width)
    return Raster(best.reshape(shape), count.reshape(shape), pixel, (float(low[0]), float(low[1])))


def raster_map(
    raster: Raster, colors: Sequence[str], *, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Draw a map of counted cells: the colour is the commonest group, fuller where cells are many.

    Args:
        raster: The counts.
        colors: Colour of each group.
        ax: Axes to draw into; new ones when not given.
        title: Title of the map.
    """
    height, width = raster.group.shape
    longest = max(height, width)
    drawn = new_axes(ax, (_SIDE * width / longest + 0.3, _SIDE * height / longest + 0.6))
    rgba = to_rgba_array(list(colors))[raster.group.clip(0)]
    full = max(
        1,
        int(np.quantile(raster.num_cells[raster.num_cells > 0], 0.9))
        if raster.num_cells.any()
        else 1,
    )
    opacity = np.minimum(1.0, _FAINT + (1 - _FAINT) * raster.num_cells / full)
    rgba[..., 3] = np.where(raster.group < 0, 0.0, opacity)
    x0, y0 = raster.origin_um
    x1, y1 = x0 + width * raster.pixel_um, y0 + height * raster.pixel_um
    drawn.imshow(rgba, extent=(x0, x1, y1, y0), interpolation="nearest")
    clear_frame(drawn)
    drawn.set_title(title)
    add_scale_bar(drawn)
    return drawn
