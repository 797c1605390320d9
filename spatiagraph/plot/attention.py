"""Attention between the tokens of two modalities, and of a cell to the cells around it."""

import os
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.sparse import csr_matrix
from torch import Tensor

from spatiagraph.data.slide import Slide
from spatiagraph.plot.canvas import DPI, save_figure
from spatiagraph.plot.maps import cell_positions, spatial

_SIDE = 2.6  # inches


class Maps(Protocol):
    """Attention both ways, ``[N, H, T, T]`` each: :class:`~spatiagraph.nn.AttentionMaps`."""

    @property
    def image(self) -> Tensor:
        """Of image tokens to gene tokens."""

    @property
    def genes(self) -> Tensor:
        """Of gene tokens to image tokens."""


def attention_maps(
    maps: Maps,
    *,
    spots: Sequence[int] | None = None,
    head: int | None = None,
    axes: Sequence[Axes] | None = None,
    save: str | os.PathLike[str] | None = None,
) -> list[Axes]:
    """Draw how much the tokens of images and genes look at each other, both ways.

    Rows are the tokens that ask, and sum to 1. The colour is the same in both panels: white where a
    token looks at all alike.

    Args:
        maps: Attention, as :meth:`STAlign.attention <spatiagraph.models.STAlign.attention>` gives
            it for spots and for niches.
        spots: Rows of the spots to average over; all when ``None``.
        head: Head to draw; their mean when ``None``.
        axes: Two axes to draw into; new ones when not given.
        save: File to write.

    Returns:
        Axes of image → genes and of genes → image.

    Raises:
        ValueError: If there is no such spot or head, or there are not two axes.
    """
    num_spots, num_heads = maps.image.shape[:2]
    chosen = list(range(num_spots)) if spots is None else list(spots)
    if not chosen or min(chosen) < 0 or max(chosen) >= num_spots:
        raise ValueError(f"Expected 'spots' in [0, {num_spots}), got {chosen[:5]}")
    if head is not None and not 0 <= head < num_heads:
        raise ValueError(f"Expected 'head' in [0, {num_heads}), got {head}")
    if axes is None:
        figure = Figure(figsize=(2 * _SIDE + 0.6, _SIDE), layout="constrained", dpi=DPI)
        axes = list(figure.subplots(1, 2))
    if len(axes) != 2:
        raise ValueError(f"Expected two axes, got {len(axes)}")
    drawn = []
    for value in (maps.image, maps.genes):
        mean = value[chosen].float().mean(0)
        drawn.append((mean.mean(0) if head is None else mean[head]).cpu().numpy())
    even = 1 / drawn[0].shape[1]
    reach = max(abs(share - even).max() for share in drawn) or even
    named = (("image token", "gene token"), ("gene token", "image token"))
    for ax, share, (asks, answers) in zip(axes, drawn, named, strict=True):
        shown = ax.imshow(share, cmap="RdBu_r", vmin=even - reach, vmax=even + reach)
        ax.set_xlabel(answers)
        ax.set_ylabel(asks)
        ax.set_xticks(range(share.shape[1]))
        ax.set_yticks(range(share.shape[0]))
        ax.tick_params(labelsize=7)
    axes[1].figure.colorbar(shown, ax=list(axes), label="attention", shrink=0.8)
    save_figure(axes[0].figure, save)  # type: ignore[arg-type]
    return list(axes)


def cell_attention(
    cells: Slide | AnnData,
    cell: int | str,
    *,
    key: str = "stofm_attention",
    window_um: tuple[float, float, float, float] | None = None,
    **options: Any,
) -> Axes:
    """Map of how much one cell attends to each of those around it.

    The cell is marked by a star; cells that it does not attend to, or whose distance it does not
    know, are grey.

    Args:
        cells: A slide, or AnnData, that :func:`~spatiagraph.inference.attention_graph` has gone
            through.
        cell: The cell that attends: its row, or its name.
        key: Matrix in ``obsp``, ``[N, N]``: row ``i`` is what cell ``i`` attends to.
        window_um: Part to show, ``(x0, y0, x1, y1)``; by default twice as far as it attends.
        **options: Of :func:`~spatiagraph.plot.spatial`, such as ``ax``, ``save`` or ``image``.

    Raises:
        ValueError: If there is no such matrix or cell.
    """
    adata, pos = cells.adata if isinstance(cells, Slide) else cells, cell_positions(cells)
    if key not in adata.obsp:
        raise ValueError(
            f"Expected {key!r} in obsp, got {', '.join(map(repr, adata.obsp)) or 'none'}: "
            "spatiagraph.inference.attention_graph writes it"
        )
    found = np.flatnonzero(adata.obs_names == cell) if isinstance(cell, str) else [int(cell)]
    if len(found) != 1 or not 0 <= (row := int(found[0])) < len(pos):
        times = f" {len(found)} times" if len(found) > 1 else ""
        raise ValueError(f"Expected a cell among {len(pos)}, got {cell!r}{times}")
    own = csr_matrix(csr_matrix(adata.obsp[key])[row])
    share = np.full(len(pos), np.nan)
    share[own.indices[own.data > 0]] = own.data[own.data > 0]
    if window_um is None:
        near = np.append(np.flatnonzero(share > 0), row)
        reach = 2 * max(float(np.abs(pos[near] - pos[row]).max()), 1.0)
        window_um = (*(pos[row] - reach), *(pos[row] + reach))
    save = options.pop("save", None)
    options = {"title": f"attention of {adata.obs_names[row]}", **options}
    ax = spatial(cells, share, window_um=window_um, **options)
    ax.plot(*pos[row], marker="*", markersize=14, color="black", markeredgecolor="white", zorder=3)
    save_figure(ax, save)
    return ax
