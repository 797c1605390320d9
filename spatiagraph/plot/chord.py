"""Chord diagram: who is said to be beside whom."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch, Wedge
from matplotlib.path import Path
from numpy.typing import ArrayLike, NDArray

from spatiagraph.plot.canvas import new_axes, save_figure
from spatiagraph.plot.colors import category_colors

_GAP = 0.03  # of the circle, between types together
_WIDTH = 0.08


def chord(
    weight: ArrayLike,
    names: Sequence[str],
    *,
    palette: Mapping[object, str] | None = None,
    title: str = "",
    ax: Axes | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Draw how much two types have to do with each other as ribbons between arcs of a circle.

    Ribbons have the width of their weight at both ends, and the colour of the larger type.

    Args:
        weight: Symmetric, 0 or more, ``[K, K]``; NaN is nothing. Draw what is more than expected,
            such as ``z`` of :func:`~spatiagraph.evaluate.type_contacts` where ``q`` is small:
            plain shares follow abundance.
        names: Types, ``K``.
        palette: Colours of the types.
        title: Title.
        ax: Axes to draw into; new ones when not given.
        save: File to write.

    Raises:
        ValueError: If the matrix is not symmetric, or holds nothing to draw.
    """
    w = np.nan_to_num(np.asarray(weight, dtype=np.float64), nan=0.0)
    if w.shape != (len(names), len(names)) or not np.allclose(w, w.T) or (w < 0).any():
        raise ValueError(
            f"Expected a symmetric matrix of 0 or more for {len(names)} types, got {list(w.shape)}"
        )
    total = w.sum(axis=1)
    if not total.any():
        raise ValueError("Expected a weight above 0, got none: there is nothing to draw")
    ax = new_axes(ax, (5.0, 5.0))
    shown = np.flatnonzero(total).tolist()
    known = pd.CategoricalDtype([*map(str, names)])
    colors = category_colors(pd.Series([*map(str, names)], dtype=known), palette)
    unit = 2 * np.pi * (1 - _GAP) / total.sum()
    gap = 2 * np.pi * _GAP / len(shown)
    start, at = {}, np.pi / 2
    for i in shown:
        start[i] = at
        _arc(ax, at, at + unit * total[i], colors[str(names[i])], str(names[i]))
        at += unit * total[i] + gap
    used = dict.fromkeys(shown, 0.0)
    for i in shown:
        for j in shown:
            if j < i or not w[i, j]:
                continue
            ends: list[tuple[float, float]] = []
            for k in (i, j):
                begin = start[k] + used[k]
                if i != j or not ends:
                    used[k] += unit * w[i, j]
                ends.append((begin, start[k] + used[k]))
            larger = i if total[i] >= total[j] else j
            ax.add_patch(_ribbon(ends[0], ends[1], colors[str(names[larger])]))
    ax.set(xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), xticks=[], yticks=[])
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set_title(title, fontsize=10)
    save_figure(ax, save)
    return ax


def _arc(ax: Axes, begin: float, end: float, color: str, name: str) -> None:
    """The arc of a type, and its name beside the middle."""
    ax.add_patch(Wedge((0, 0), 1.0, np.degrees(begin), np.degrees(end), width=_WIDTH, color=color))
    middle = (begin + end) / 2
    right = np.cos(middle) >= 0
    turn = np.degrees(middle) if right else np.degrees(middle) - 180
    ax.text(
        1.05 * np.cos(middle), 1.05 * np.sin(middle), name, fontsize=8, rotation=turn,
        rotation_mode="anchor", ha="left" if right else "right", va="center",
    )  # fmt: skip


def _ribbon(first: tuple[float, float], second: tuple[float, float], color: str) -> PathPatch:
    """A band between two arcs, curved towards the middle."""
    a, b = (_points(*ends) for ends in (first, second))
    corners = np.concatenate([a, [(0, 0)], b, [(0, 0)], a[:1]])
    codes = (
        [Path.MOVETO, *[Path.LINETO] * (len(a) - 1), Path.CURVE3, Path.CURVE3]
        + [Path.LINETO] * (len(b) - 1)
        + [Path.CURVE3, Path.CURVE3]
    )
    return PathPatch(Path(corners, codes), facecolor=color, alpha=0.55, linewidth=0)


def _points(begin: float, end: float) -> NDArray[np.float64]:
    angle = np.linspace(begin, end, 24)
    return (1 - _WIDTH) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
