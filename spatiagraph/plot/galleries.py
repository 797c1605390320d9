"""Crops of cells and niches side by side."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spatiagraph.plot.canvas import DPI, add_scale_bar, clear_frame, save_figure

_TILE = 1.5  # inches


def gallery(
    images: NDArray,
    titles: Sequence[str] | None = None,
    *,
    mask: NDArray[np.bool_] | None = None,
    num_columns: int = 6,
    window_um: float | None = None,
    frames: Sequence[str | None] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Images in rows and columns.

    One channel is shown in grey, two as red and green, and of more than three the first three.

    Args:
        images: ``[N, C, H, W]`` in [0, 1], as :meth:`SlideImage.crops` returns them.
        titles: A line above each image.
        mask: False for images that are not there, ``[N]``: drawn as an empty frame that says so.
        num_columns: Images per row.
        window_um: Side of the images in µm, for a scale bar under the first.
        frames: Colour of a frame around each image, or ``None``.
        save: File to write.

    Raises:
        ValueError: If shapes do not match.
    """
    images = np.asarray(images)
    if images.ndim != 4 or not len(images):
        raise ValueError(f"Expected images [N, C, H, W], at least one, got shape {images.shape}")
    for name, values in {"titles": titles, "mask": mask, "frames": frames}.items():
        if values is not None and len(values) != len(images):
            raise ValueError(f"Expected one of {name!r} per image, got {len(values)}")
    columns = min(num_columns, len(images))
    rows = -(-len(images) // columns)
    tall = _TILE + (0.25 if titles is not None else 0.0)
    figure = Figure(figsize=(columns * _TILE, rows * tall + 0.25), layout="constrained", dpi=DPI)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for number, ax in enumerate(axes):
        clear_frame(ax)
        if number >= len(images):
            continue
        side = float(images.shape[-1]) if window_um is None else window_um
        ax.set_xlim(0, side)
        ax.set_ylim(side, 0)
        ax.set_aspect("equal")
        if mask is not None and not mask[number]:
            ax.text(side / 2, side / 2, "outside\nthe image", ha="center", va="center", fontsize=7)
            for spine in ax.spines.values():
                spine.set_visible(True)
        else:
            ax.imshow(as_rgb(images[number]), extent=(0, side, side, 0), vmin=0, vmax=1)
        if titles is not None:
            ax.set_title(titles[number], fontsize=7, pad=3)
        if frames is not None and frames[number] is not None:
            for spine in ax.spines.values():
                spine.set(visible=True, color=frames[number], linewidth=2)
        if window_um is not None and number == 0:
            add_scale_bar(ax, gap=0.05, thickness=0.02)
    save_figure(figure, save)
    return figure


def as_rgb(image: NDArray) -> NDArray[np.floating]:
    """An image ``[C, H, W]`` as ``[H, W, 3]`` in [0, 1]."""
    channels = np.moveaxis(np.asarray(image, dtype=np.float32), 0, -1).clip(0, 1)
    if channels.shape[-1] == 1:
        return np.repeat(channels, 3, axis=-1)
    if channels.shape[-1] == 2:
        return np.concatenate([channels, np.zeros_like(channels[..., :1])], axis=-1)
    return channels[..., :3]
