"""Generated images of cells, for a report."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
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
        verdict: How well it went, above the images.
    """

    control: NDArray
    generated: NDArray
    target: NDArray | None = None
    labels: Sequence[str] | None = None
    title: str = ""
    caption: str = ""
    verdict: str = ""


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
                verdict=_verdict(scores.table, str(tag)),
            )
        )
    return made


def _verdict(table: pd.DataFrame, tag: str) -> str:
    """A line on the nuclei of generated cells beside those of the same cells unchanged."""
    names = {"generated": "generated", "identity": "unchanged", "random_target": "other real cells"}
    ks = {who: float(table["ks"].get((who, tag), np.nan)) for who in names}
    if np.isnan([ks["generated"], ks["identity"]]).any():
        return ""
    found = ", ".join(f"{name} {ks[who]:.2f}" for who, name in names.items() if ks[who] == ks[who])
    better = ks["generated"] - ks["identity"]
    line = f"Generated cells are closer to real ones than the cells unchanged, by {better:.2f}."
    if better <= 0:
        line = (
            "Generated cells are no closer to real ones than the cells unchanged: take the images "
            "for no result. More cells and longer training may help."
        )
    return (
        f"{line} Agreement of their nuclei in size and shape with those of real target cells, on "
        f"tissue that training never saw (1 is the same distribution): {found}."
    )


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
    if made.verdict:
        page.add_text(made.verdict)
    page.add_figure(figure, alt=f"{made.title or 'Transition'}: {rows}", caption=caption)
