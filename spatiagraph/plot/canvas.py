"""Axes to draw into, scale bars, and files; no state shared between figures."""

import math
import os
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from spatiagraph._files import replaced_file

DPI = 150
_STEPS = (1, 2, 5, 10)


def new_axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """The axes given, or new ones in a figure of their own of ``size`` inches."""
    if ax is not None:
        return ax
    return Figure(figsize=size, layout="constrained", dpi=DPI).add_subplot()


def save_figure(drawn: Figure | Axes, path: str | os.PathLike[str] | None) -> None:
    """Write a figure to a file, if there is a path; the suffix says the format, PNG without one.

    Args:
        drawn: The figure, or axes of it.
        path: The file.
    """
    if path is not None:
        figure = drawn.figure if isinstance(drawn, Axes) else drawn
        if not isinstance(figure, Figure):
            raise ValueError("Expected axes of a whole figure with 'save', got those of a part")
        place = Path(path)
        with replaced_file(place if place.suffix else place.with_suffix(".png")) as new:
            figure.savefig(new, bbox_inches="tight")


def bar_length_um(width_um: float) -> float:
    """A round length of about a fifth of a width.

    Examples:
        >>> bar_length_um(1234), bar_length_um(60)
        (200, 10)
    """
    rough = width_um / 5
    power = 10 ** math.floor(math.log10(rough))
    length = max(step * power for step in _STEPS if step * power <= rough * (1 + 1e-9))
    return int(length) if length >= 1 else length


def add_scale_bar(
    ax: Axes, length_um: float | None = None, *, gap: float = 0.01, thickness: float = 0.004
) -> None:
    """Put a bar of known length below axes whose x is in µm.

    Args:
        ax: The axes; their limits must be final.
        length_um: Length of the bar; a round one by default.
        gap: Space between axes and bar, as a share of the axes' height.
        thickness: Of the bar, as a share of the axes' width.
    """
    low, high = sorted(ax.get_xlim())
    length = bar_length_um(high - low) if length_um is None else length_um
    label = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    bar = AnchoredSizeBar(
        ax.transData,
        length,
        label,
        loc="upper left",
        bbox_to_anchor=(0.0, -gap),
        bbox_transform=ax.transAxes,
        pad=0.0,
        borderpad=0.0,
        sep=3,
        frameon=False,
        size_vertical=(high - low) * thickness,
        color="black",
    )
    ax.add_artist(bar)


def clear_frame(ax: Axes) -> None:
    """No ticks and no spines: the scale bar says what they would."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
