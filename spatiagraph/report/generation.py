"""Generated images of cells, for a report."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import NDArray

from spatiagraph.inference.transition_scores import TransitionScores
from spatiagraph.plot.galleries import transition_gallery
from spatiagraph.report.page import Report


@dataclass(frozen=True)
class Generation:
    """Images of cells before and after a transition.

    Attributes:
        control: The cells as they are, ``[N, C, H, W]`` in [0, 1].
        generated: What the model made of them, ``[N, C, H, W]``.
        target: Real cells they were matched with, ``[N, C, H, W]``, if there are any.
        labels: A line above each cell, ``[N]``.
        title: The transition, such as ``"healthy to tumour"``.
        caption: A line below.
    """

    control: NDArray
    generated: NDArray
    target: NDArray | None = None
    labels: Sequence[str] | None = None
    title: str = ""
    caption: str = ""


def as_generations(scores: TransitionScores) -> list[Generation]:
    """Scored cells as reports show them, transition by transition."""
    made = []
    for tag, group in scores.pairs.groupby("transition", sort=False):
        rows = group.index.to_numpy()
        made.append(
            Generation(
                scores.control[rows],
                scores.generated[rows],
                scores.target[rows],
                title=str(tag),
            )
        )
    return made


def add_generation(page: Report, made: Generation, *, max_cells: int = 8) -> None:
    """A section with the pictures; of many cells the first are shown.

    Args:
        page: The report.
        made: The images.
        max_cells: Cells to show.
    """
    figure = transition_gallery(
        made.control, made.generated, made.target, labels=made.labels, max_cells=max_cells
    )
    rows = "cells as they are, and as generated"
    if made.target is not None:
        rows = "cells as they are, as generated, and real cells they were matched with"
    shown, number = min(len(made.control), max_cells), len(made.control)
    caption = made.caption or f"From above: {rows}. {shown} of {number} cells"
    page.section(f"Generation: {made.title}" if made.title else "Generation")
    page.add_figure(figure, alt=f"{made.title or 'Transition'}: {rows}", caption=caption)
