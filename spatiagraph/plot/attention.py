"""Attention between the tokens of two modalities."""

import os
from collections.abc import Sequence
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from spatiagraph.plot.canvas import DPI, save_figure

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
