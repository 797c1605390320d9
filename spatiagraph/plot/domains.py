"""Curve of how well each number of domains holds together."""

import os

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from spatiagraph.plot.canvas import new_axes, save_figure
from spatiagraph.plot.colors import PALETTE


def domain_curve(
    curve: pd.DataFrame,
    *,
    chosen: int | None = None,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Axes:
    """Stability and mean confidence over the number of domains; peaks are ringed.

    Args:
        curve: As :func:`spatiagraph.domain_curve` gives it.
        chosen: Number to mark.
        ax: Axes to draw into; new ones when not given.
        save: File to write.
        title: Title.

    Raises:
        ValueError: If a column is missing, or there is no row.
    """
    needed = ["stability", "confidence", "peak"]
    if not len(curve) or any(name not in curve for name in needed):
        raise ValueError(
            f"Expected a curve with rows and columns {', '.join(needed)}, got {len(curve)} rows "
            f"and {list(curve.columns)}"
        )
    ax = new_axes(ax, (4.2, 2.8))
    for name, color in zip(("stability", "confidence"), PALETTE, strict=False):
        ax.plot(curve.index, curve[name], marker="o", markersize=3, color=color, label=name)
    peaks = curve[curve["peak"]]
    ax.plot(peaks.index, peaks["stability"], "o", markersize=9, fillstyle="none", color=PALETTE[0])
    if chosen is not None:
        ax.axvline(chosen, color="black", linewidth=0.8, linestyle=":")
    ax.set_xlabel("number of domains")
    ax.set_ylim(min(0.0, float(curve["stability"].min())), 1.03)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=8, frameon=False)
    if title is not None:
        ax.set_title(title, fontsize=10)
    save_figure(ax.figure, save)  # type: ignore[arg-type]
    return ax
