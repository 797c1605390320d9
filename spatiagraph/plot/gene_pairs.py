"""Figures of genes whose molecules lie together: inside of chosen cells, and by type of cell."""

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from spatiagraph.data.slide import Slide
from spatiagraph.plot.canvas import DPI, add_scale_bar, save_figure

_COLORS = ("#e6007e", "#00a5cf")
_OTHERS = "#b8b8b8"
_OUTLINE = "#f4c20d"


def pairs_in_cells(
    slide: Slide,
    pairs: Sequence[tuple[str, str]],
    cells: Sequence[str],
    *,
    outlines: pd.DataFrame | None = None,
    window_um: float = 24.0,
    channel: int = 0,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Molecules of two genes inside of chosen cells, over the image: a row per pair of genes.

    Genes have the colours of their names at the left, others are grey. Molecules of the cell are
    large, those of its neighbours small.

    Args:
        slide: The slide, with molecules.
        pairs: Two genes each, such as the surest of
            :func:`~spatiagraph.data.colocalization.gene_pair_tests`.
        cells: Names of cells, a column each.
        outlines: Corners of cells, in order: ``cell_id``, ``x_um``, ``y_um``.
        window_um: Side of the window around the middle of each cell.
        channel: Channel of the image, such as that of DAPI; a slide without image has none.
        save: File to write.

    Raises:
        ValueError: The slide has no molecules, a cell is not on it, or a gene has no molecules.
    """
    table = slide.transcripts
    if table is None or "cell_id" not in table:
        raise ValueError(f"Expected molecules in cells on slide {slide.slide_id!r}, got none")
    if not pairs or not cells:
        raise ValueError(f"Expected pairs of genes and cells, got {len(pairs)} and {len(cells)}")
    rows = slide.adata.obs_names.get_indexer(pd.Index(list(cells)))
    if (rows < 0).any():
        raise ValueError(
            f"Expected cells of slide {slide.slide_id!r}, got {cells[rows.argmin()]!r}"
        )
    missing = sorted({g for pair in pairs for g in pair} - set(table["gene"].unique()))
    if missing:
        raise ValueError(f"Expected genes with molecules, got {', '.join(missing)} without")
    half = window_um / 2
    figure = Figure(
        figsize=(1.9 * len(cells) + 0.9, 1.95 * len(pairs) + 0.3), layout="constrained", dpi=DPI
    )
    axes = figure.subplots(len(pairs), len(cells), squeeze=False)
    images = _images(slide, slide.pos[rows], window_um, channel)
    at = table[["x_um", "y_um"]].to_numpy(float)
    for column, (name, row) in enumerate(zip(cells, rows, strict=True)):
        x, y = slide.pos[row]
        inside = (np.abs(at - (x, y)) <= half).all(axis=1)
        near = table[inside]
        own = (near["cell_id"].astype(str) == name).to_numpy()
        for line, pair in enumerate(pairs):
            ax = axes[line, column]
            if images is not None:
                ax.imshow(
                    images[column], cmap="gray", vmin=0, vmax=1,
                    extent=(x - half, x + half, y + half, y - half),
                )  # fmt: skip
            if outlines is not None:
                corners = outlines[outlines["cell_id"].astype(str) == name]
                closed = np.vstack([corners[["x_um", "y_um"]], corners[["x_um", "y_um"]][:1]])
                ax.plot(*closed.T, color=_OUTLINE, lw=0.9)
            gene = near["gene"].astype(str).to_numpy()
            place = at[inside]
            other = ~np.isin(gene, pair)
            ax.scatter(*place[other].T, s=1.5, c=_OTHERS, linewidths=0)
            for which, color in zip(pair, _COLORS, strict=True):
                for mask, size in ((own, 13), (~own, 4)):
                    spots = place[(gene == which) & mask]
                    ax.scatter(*spots.T, s=size, c=color, linewidths=0)
            ax.set(xlim=(x - half, x + half), ylim=(y + half, y - half), xticks=[], yticks=[])
            ax.set_aspect("equal")
            if line == 0:
                ax.set_title(name, fontsize=7)
            if column == 0:
                for which, color, high in zip(pair, _COLORS, (0.98, 0.48), strict=True):
                    ax.text(
                        -0.06, high, which, color=color, fontsize=8, rotation=90, ha="right",
                        va="top", transform=ax.transAxes,
                    )  # fmt: skip
    add_scale_bar(axes[-1, 0])
    save_figure(figure, save)
    return figure


def pairs_by_type(
    present: csr_matrix,
    names: Sequence[str],
    types: ArrayLike | pd.Series,
    *,
    num_pairs: int = 20,
    save: str | os.PathLike[str] | None = None,
) -> Figure:
    """Heat map of the share of cells of each type that have each pair of genes.

    Args:
        present: Whether each cell has each pair, ``[N, P]``, as ``X`` of ``to_adata()``.
        names: Names of the pairs, ``P``.
        types: Type of each cell, ``[N]``; cells without one are left out.
        num_pairs: Pairs that are shown: those whose shares differ most between types.
        save: File to write.

    Raises:
        ValueError: If sizes differ, or no cell has a type.
    """
    series = pd.Series(np.asarray(types, dtype=object))
    if present.shape != (len(series), len(names)) or not len(names):
        raise ValueError(
            f"Expected {len(series)} cells x {len(names)} pairs, got {list(present.shape)}"
        )
    if series.isna().all():
        raise ValueError("Expected types of cells, got none")
    shown = sorted(series.dropna().astype(str).unique())
    has = csr_matrix(present) > 0
    share = np.stack(
        [
            np.asarray(has[(series.astype(str) == name).to_numpy()].mean(axis=0)).ravel()
            for name in shown
        ]
    )
    order = np.argsort(-np.ptp(share, axis=0), kind="stable")[:num_pairs]
    order = order[np.lexsort((-share[:, order].max(0), share[:, order].argmax(0)))]
    size = (2.2 + 0.27 * len(order), 1.9 + 0.27 * len(shown))
    figure = Figure(figsize=size, layout="constrained", dpi=DPI)
    ax = figure.add_subplot()
    picture = ax.imshow(share[:, order], cmap="Reds", vmin=0, aspect="auto")
    ax.set_xticks(range(len(order)), [names[i] for i in order], rotation=90, fontsize=8)
    ax.set_yticks(range(len(shown)), shown, fontsize=8)
    bar = figure.colorbar(picture, ax=ax, shrink=0.7, pad=0.02)
    bar.set_label("share of cells", fontsize=8)
    save_figure(figure, save)
    return figure


def _images(
    slide: Slide, pos: NDArray[np.float64], window_um: float, channel: int
) -> NDArray[np.float32] | None:
    """One channel around each cell, stretched to what it shows, ``[n, S, S]``."""
    if slide.image is None:
        return None
    crops, _ = slide.image.crops(pos, window_um, 96)
    if not 0 <= channel < crops.shape[1]:
        raise ValueError(f"Expected a channel of {crops.shape[1]}, got {channel}")
    shown = crops[:, channel]
    top = max(float(np.percentile(shown, 99.5)), 1e-6)
    return np.clip(shown / top, 0, 1).astype(np.float32)
