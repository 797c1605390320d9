"""Figure of tested pairs of genes: how large an effect is, and how sure."""

import os

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from spatiagraph.plot.canvas import new_axes, save_figure

_SHOWN, _HIDDEN = "#c0392b", "#9aa5b1"
_LINE, _COLUMN = 0.045, 0.62  # of names: height and place, as shares of the axes


def volcano(
    tested: pd.DataFrame,
    *,
    q: float = 0.05,
    num_names: int = 10,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Mean effect of taking each pair of genes against its corrected p-value.

    Coloured are those below ``q`` whose effect is negative, and where the table has ``q_others``,
    only those below it there as well.

    Args:
        tested: Of :func:`~spatiagraph.evaluate.gene_pair_effects`.
        q: Corrected p-value below which a pair counts.
        num_names: How many of these are named, the surest.
        ax: Where to draw.
        save: File to write.

    Raises:
        ValueError: There is no tested pair.
    """
    tested = tested[np.isfinite(tested["q"])] if len(tested) else tested
    if not len(tested):
        raise ValueError("Expected tested pairs of genes, got none: lower min_support")
    sure = (tested["q"] < q) & (tested["mean"] < 0)
    if "q_others" in tested:
        sure &= tested["q_others"] < q
    ax = new_axes(ax, (5.6, 4.4))
    height = -np.log10(np.maximum(tested["q"].to_numpy(float), 1e-300))
    mean, sure = tested["mean"].to_numpy(float), sure.to_numpy(bool)
    for rows, color, size in ((~sure, _HIDDEN, 6), (sure, _SHOWN, 12)):
        ax.scatter(mean[rows], height[rows], s=size, c=color, linewidths=0, rasterized=True)
    ax.axhline(-np.log10(q), color="#555555", lw=0.7, ls="--")
    ax.axvline(0, color="#555555", lw=0.7)
    named = np.flatnonzero(sure)[:num_names]
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)
    top = 1.0
    below = _LINE * len(named)
    for row in named[np.argsort(-height[named], kind="stable")]:  # in a column, none over another
        below -= _LINE  # room that the names after it need
        top = max(min((height[row] - low) / (high - low), top - _LINE), below)
        a, b = (str(tested[c].iat[row]) for c in ("gene_a", "gene_b"))
        ax.annotate(
            f"{a}–{b}", (mean[row], height[row]), xytext=(_COLUMN, top), fontsize=7, va="center",
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": "#999999", "lw": 0.4, "shrinkB": 2},
        )  # fmt: skip
    ax.set_xlabel("mean effect of taking both genes")
    ax.set_ylabel("−log10 q")
    ax.set_title(f"{int(sure.sum())} of {len(tested):,} pairs of genes", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    save_figure(ax, save)
    return ax
