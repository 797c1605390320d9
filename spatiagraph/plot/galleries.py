"""Crops of cells and niches side by side."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
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

    One channel is shown in grey, two as magenta and green, and of more than three the first three.

    Args:
        images: ``[N, C, H, W]`` in [0, 1], as :meth:`SlideImage.crops` returns them.
        titles: A line above each image.
        mask: False for images that are not there, ``[N]``: drawn as an empty frame that says so.
        num_columns: Images per row.
        window_um: Side of the images in µm, for a scale bar under the last.
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
        if window_um is not None and number == len(images) - 1:  # no title is below the last
            add_scale_bar(ax, gap=0.05, thickness=0.02)
    save_figure(figure, save)
    return figure


def transition_gallery(
    control: NDArray,
    generated: NDArray,
    target: NDArray | None = None,
    *,
    labels: Sequence[str] | None = None,
    max_cells: int = 8,
    window_um: float | None = None,
    save: str | os.PathLike[str] | None = None,
    axes: NDArray | Sequence[Sequence[Axes]] | None = None,
) -> Figure:
    """Draw generated images: a column per cell, from the control to the real target.

    One channel is shown in grey, two as magenta and green, and of more than three the first three.
    All pictures are shown on the same scale, 0 to 1.

    Args:
        control: Cells before the transition, ``[N, C, H, W]`` in [0, 1].
        generated: The same cells after it, as generated, ``[N, C, H, W]``.
        target: Real cells they were matched with, ``[N, C, H, W]``; two rows when not given.
        labels: A line above each column, ``[N]``.
        max_cells: Columns; of more cells the first are shown.
        window_um: Side of the images in µm, for a scale bar under the last of each row.
        save: File to write.
        axes: Axes to draw into, ``[2 or 3, min(N, max_cells)]``; new ones when not given.

    Returns:
        The figure.

    Raises:
        ValueError: If shapes do not match, or an image has values that are not finite.
    """
    rows = {"control": control, "generated": generated}
    if target is not None:
        rows["target"] = target
    images = {name: np.asarray(values) for name, values in rows.items()}
    shape = images["control"].shape
    if len(shape) != 4 or not shape[0] or max_cells < 1:
        raise ValueError(
            f"Expected images [N, C, H, W], at least one, and room for it, got {shape} and "
            f"max_cells={max_cells}"
        )
    for name, values in images.items():
        if values.shape != shape:
            raise ValueError(f"Expected {name!r} as large as 'control' {shape}, got {values.shape}")
        broken = np.flatnonzero(~np.isfinite(values).all((1, 2, 3)))
        if len(broken):
            raise ValueError(
                f"Expected finite values in {name!r}, images {broken[:5].tolist()} have others"
            )
    if labels is not None and len(labels) != shape[0]:
        raise ValueError(f"Expected one of 'labels' per cell, got {len(labels)} for {shape[0]}")
    columns = min(shape[0], max_cells)
    if axes is None:
        tall = len(rows) * _TILE + (0.3 if labels is not None else 0.0)
        whole = Figure(figsize=(columns * _TILE + 0.3, tall), layout="constrained", dpi=DPI)
        axes = whole.subplots(len(rows), columns, squeeze=False)
    grid = np.asarray(axes, dtype=object)
    if grid.shape != (len(rows), columns):
        raise ValueError(f"Expected axes [{len(rows)}, {columns}], got {list(grid.shape)}")
    for line, (name, values) in zip(grid, images.items(), strict=True):
        for ax, image in zip(line, values, strict=False):
            clear_frame(ax)
            wide = float(shape[-1]) if window_um is None else window_um
            high = wide * shape[-2] / shape[-1]
            ax.imshow(as_rgb(image), extent=(0, wide, high, 0), vmin=0, vmax=1)
        if window_um is not None:
            add_scale_bar(line[-1], gap=0.05, thickness=0.02)
        line[0].set_ylabel(name, fontsize=9)
    for ax, label in zip(grid[0], [] if labels is None else labels, strict=False):
        ax.set_title(label, fontsize=7, pad=3)
    figure: Figure = grid[0, 0].figure
    save_figure(figure, save)
    return figure


def as_rgb(image: NDArray) -> NDArray[np.floating]:
    """An image ``[C, H, W]`` as ``[H, W, 3]`` in [0, 1]."""
    channels = np.moveaxis(np.asarray(image, dtype=np.float32), 0, -1).clip(0, 1)
    if channels.shape[-1] == 1:
        return np.repeat(channels, 3, axis=-1)
    if channels.shape[-1] == 2:
        return channels[..., [0, 1, 0]]  # magenta and green, as red beside green is lost on many
    return channels[..., :3]
