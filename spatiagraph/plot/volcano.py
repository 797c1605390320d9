"""Figure of tested pairs of genes: how large an effect is, and how sure."""

import os

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from spatiagraph.plot.canvas import new_axes, save_figure

_SHOWN, _HIDDEN = "#c0392b", "#9aa5b1"


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
    for row in np.flatnonzero(sure)[:num_names]:
        a, b = (str(tested[c].iat[row]) for c in ("gene_a", "gene_b"))
        ax.annotate(
            f"{a}–{b}", (mean[row], height[row]), xytext=(3, 2), textcoords="offset points",
            fontsize=7,
        )  # fmt: skip
    ax.set_xlabel("mean effect of taking both genes")
    ax.set_ylabel("−log10 q")
    ax.set_title(f"{int(sure.sum())} of {len(tested):,} pairs of genes", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    save_figure(ax, save)
    return ax
