"""Lines and bars: how training went, and how scores compare."""

import os
from collections.abc import Collection

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spatiagraph.plot.canvas import DPI, new_axes, save_figure
from spatiagraph.plot.colors import PALETTE

_HEALTH = {
    "grad_norm": "gradient norm",
    "effective_rank": "effective rank",
    "moved": "distance from the start",
}
_NOT_A_LOSS = (
    "epoch", "steps", "cells", "seconds", "lr", "lr_sum", *_HEALTH
)  # fmt: skip
_UNDRAWN = ("start_val_", "gates_moved")  # beginnings of names
_VALIDATION = "val_"
_PER_ROW = 4


def training_curve(
    history: pd.DataFrame,
    column: str = "loss",
    *,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Axes:
    """Loss, or another column of the history, over the epochs, with that of validation beside it.

    Args:
        history: One row per epoch: ``epoch``, ``loss``, its parts, those of validation as
            ``val_loss`` and the like, ``grad_norm`` and ``effective_rank``, as ``fit`` returns it.
        column: Column to draw.
        ax: Axes to draw into; new ones when not given.
        save: File to write.
        title: Title; the name of the column by default.

    Raises:
        ValueError: If there is no such column, or no epoch.
    """
    _check_history(history, column)
    ax = new_axes(ax, (4.0, 2.6))
    _line(ax, history, column, "black" if column == "loss" else PALETTE[0])
    validation = f"{_VALIDATION}{column}"
    if validation in history and history[validation].notna().any():
        ax.lines[-1].set_label("training")
        _line(ax, history, validation, PALETTE[1])
        ax.lines[-1].set_label("validation")
        ax.legend(fontsize=8, frameon=False)
    ax.set_title(_HEALTH.get(column, column) if title is None else title, fontsize=10)
    if column == "loss":
        ax.set_ylabel("loss per cell")
    if column == "effective_rank":
        ax.set_ylim(0, max(1.0, 1.08 * history[column].max()))
    save_figure(ax, save)
    return ax


def training_curves(history: pd.DataFrame, *, save: str | os.PathLike[str] | None = None) -> Figure:
    """Loss, each of its parts and the health of the run over the epochs, each on its own scale.

    Args:
        history: One row per epoch: ``epoch``, ``loss``, its parts, ``grad_norm`` and
            ``effective_rank``, as ``fit`` returns it.
        save: File to write.

    Raises:
        ValueError: If there is no ``loss``, or no epoch.
    """
    _check_history(history, "loss")
    known = [str(name) for name in history if history[name].notna().any()]
    beside = [f"{_VALIDATION}{name}" for name in known]  # drawn with what they are validation of
    other = {*_NOT_A_LOSS, *beside, "loss", *(n for n in known if n.startswith(_UNDRAWN))}
    parts = [name for name in known if name not in other]
    shown = ["loss", *parts, *(name for name in _HEALTH if name in known)]
    rows = -(-len(shown) // _PER_ROW)
    columns = -(-len(shown) // rows)
    figure = Figure(figsize=(3.0 * columns, 2.4 * rows), layout="constrained", dpi=DPI)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, name in zip(axes, shown, strict=False):
        training_curve(history, name, ax=ax)
    for ax in axes[len(shown) :]:
        ax.remove()
    save_figure(figure, save)
    return figure


def _check_history(history: pd.DataFrame, column: str) -> None:
    if column not in history or not len(history):
        raise ValueError(
            f"Expected a history with a column {column!r} and at least one epoch, got "
            f"{list(history.columns)} and {len(history)} rows"
        )


def _line(ax: Axes, history: pd.DataFrame, column: str, color: str) -> None:
    epoch = history["epoch"] if "epoch" in history else pd.Series(range(len(history)))
    marker = "o" if len(history) <= 40 else ""
    # people count from one
    ax.plot(epoch + 1, history[column], color=color, marker=marker, markersize=3)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.ticklabel_format(axis="y", useOffset=False)
    ax.spines[["top", "right"]].set_visible(False)


def score_bars(
    scores: pd.DataFrame,
    score: str,
    *,
    error: str | None = None,
    highlight: str | Collection[str] | None = None,
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
    title: str | None = None,
) -> Axes:
    """Scores of methods side by side.

    Args:
        scores: One row per method, its name in the index.
        score: Column to draw.
        error: Column of the half-length of the error bars.
        highlight: Method, or methods, drawn in colour; the others are grey.
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
    shown = names if highlight is None else [highlight] if isinstance(highlight, str) else highlight
    hues = [PALETTE[0] if n in shown else "#B0B0B0" for n in names]
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
    save_figure(ax, save)
    return ax


def protocol_bars(
    scores: pd.DataFrame,
    *,
    highlight: Collection[str] = (),
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Scores of embeddings and baselines, a panel for each protocol.

    Args:
        scores: Tidy table, as :func:`spatiagraph.evaluate.run_protocols` gives it; the first
            metric of each protocol is drawn.
        highlight: Embeddings drawn in colour; the others are grey.
        save: File to write.

    Raises:
        ValueError: If the table has no row.
    """
    protocols = list(dict.fromkeys(scores["protocol"]))
    if not protocols:
        raise ValueError("Expected scores of at least one protocol, got none")
    height = 0.9 + 0.32 * scores["embedding"].nunique()
    figure = Figure(figsize=(4.6 * len(protocols), height), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, len(protocols), squeeze=False)[0]
    for ax, protocol in zip(axes, protocols, strict=True):
        part = scores[scores["protocol"] == protocol]
        metric = part["metric"].iloc[0]
        wide = part[part["metric"] == metric].set_index("embedding")
        title = f"{protocol}: {metric.replace('_', ' ')}"
        score_bars(wide, "value", error="std", highlight=highlight, ax=ax, title=title)
    save_figure(figure, save)
    return figure
