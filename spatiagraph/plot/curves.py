"""Lines and bars: how training went, and how scores compare."""

import os
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from spatiagraph.plot.canvas import new_axes, save_figure
from spatiagraph.plot.colors import PALETTE

_NOT_A_LOSS = ("epoch", "cells", "seconds", "lr", "grad_norm")


def training_curve(
    history: pd.DataFrame,
    *,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
    title: str = "Training",
) -> Axes:
    """Loss and its parts over the epochs.

    Args:
        history: One row per epoch: ``epoch``, ``loss`` and its parts, as ``fit`` returns it.
        ax: Axes to draw into; new ones when not given.
        save: File to write.
        title: Title.

    Raises:
        ValueError: If there is no ``loss``, or no epoch.
    """
    if "loss" not in history or not len(history):
        raise ValueError(
            f"Expected a history with a column 'loss' and at least one epoch, got "
            f"{list(history.columns)} and {len(history)} rows"
        )
    ax = new_axes(ax, (6.0, 3.2))
    epoch = history["epoch"] if "epoch" in history else pd.Series(range(len(history)))
    epoch = epoch + 1 - epoch.min()  # people count from one
    parts = [c for c in history if c not in (*_NOT_A_LOSS, "loss") and history[c].notna().any()]
    marker = "o" if len(history) <= 40 else ""
    line: dict[str, Any] = {"marker": marker, "markersize": 3}
    ax.plot(epoch, history["loss"], color="black", linewidth=2, label="loss", **line)
    for number, part in enumerate(parts):
        hue = PALETTE[number % len(PALETTE)]
        ax.plot(epoch, history[part], color=hue, linewidth=1.2, label=part, **line)
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss per cell")
    ax.set_title(title)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    if parts:
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    save_figure(ax.figure, save)  # type: ignore[arg-type]
    return ax


def score_bars(
    scores: pd.DataFrame,
    score: str,
    *,
    error: str | None = None,
    highlight: str | None = None,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Axes:
    """Scores of methods side by side.

    Args:
        scores: One row per method, its name in the index.
        score: Column to draw.
        error: Column of the half-length of the error bars.
        highlight: Method drawn in colour; the others are grey.
        ax: Axes to draw into; new ones when not given.
        save: File to write.
        title: Title; the name of the score by default.

    Raises:
        ValueError: If there is no such column.
    """
    for column in (score, error):
        if column is not None and column not in scores:
            raise ValueError(f"Expected a column {column!r}, found {list(scores.columns)}")
    ax = new_axes(ax, (6.0, 0.8 + 0.4 * len(scores)))
    names = [str(n) for n in scores.index]
    hues = [PALETTE[0] if n == highlight or highlight is None else "#B0B0B0" for n in names]
    whisker = None if error is None else scores[error].fillna(0)
    bars = ax.barh(names, scores[score], xerr=whisker, color=hues, height=0.7, capsize=3)
    texts = [f"{value:.2f}" for value in scores[score]]
    ax.bar_label(bars, texts, padding=4, fontsize=9)
    ax.invert_yaxis()
    ax.axvline(0, color="black", linewidth=0.8)
    ax.margins(x=0.12)
    ax.set_title(score if title is None else title)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(left=False)
    save_figure(ax.figure, save)  # type: ignore[arg-type]
    return ax
