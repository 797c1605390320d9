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
        window_um: Side of the images in µm, if it is known.
    """

    control: NDArray
    generated: NDArray
    target: NDArray | None = None
    labels: Sequence[str] | None = None
    title: str = ""
    caption: str = ""
    verdict: str = ""
    window_um: float | None = None


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
                window_um=scores.window_um,
            )
        )
    return made


def _verdict(table: pd.DataFrame, tag: str) -> str:
    """A line on the nuclei of generated cells beside those of the same cells unchanged."""
    if "kernel_morphology" not in table:
        return ""
    names = {"generated": "generated", "identity": "unchanged", "random_target": "other real cells"}
    ks, kernel = (
        {who: float(table[score].get((who, tag), np.nan)) for who in names}
        for score in ("ks", "kernel_morphology")
    )
    if np.isnan([ks["generated"], ks["identity"]]).any():
        return ""
    found, apart = (
        ", ".join(f"{name} {of[who]:.2f}" for who, name in names.items() if of[who] == of[who])
        for of in (ks, kernel)
    )
    if ks["generated"] <= ks["identity"]:
        line = "Generated cells are no closer to real ones than the cells unchanged"
    elif not kernel["generated"] < kernel["identity"]:
        line = (
            "Generated cells are closer to real ones than the cells unchanged in single measures "
            "of their nuclei, and not in all of them together"
        )
    else:
        line = "Generated cells are closer to real ones than the cells unchanged"
        return f"{line}. {_measured(found, apart)}"
    return f"{line}: take the images for no result. {_measured(found, apart)}"


def _measured(found: str, apart: str) -> str:
    return (
        "Nuclei beside those of real target cells, on tissue that training never saw: agreement "
        f"of single measures (1 is the same distribution): {found}; distance of all together (0 "
        f"is the same): {apart}."
    )


def add_generation(page: Report, made: Generation, *, max_cells: int = 8) -> None:
    """A section with the pictures; of many cells the first are shown.

    Args:
        page: The report.
        made: The images.
        max_cells: Cells to show.
    """
    figure = transition_gallery(
        made.control,
        made.generated,
        made.target,
        labels=made.labels,
        max_cells=max_cells,
        window_um=made.window_um,
    )
    rows = "cells as they are, and as generated"
    if made.target is not None:
        rows = "cells as they are, as generated, and real cells they were matched with"
    shown, number = min(len(made.control), max_cells), len(made.control)
    caption = made.caption or f"From above: {rows}. {shown} of {number} cells"
    if made.window_um is not None:
        caption = f"{caption.rstrip('. ')}. Squares are {made.window_um:.3g} µm wide"
    page.section(f"Generation: {made.title}" if made.title else "Generation")
    if made.verdict:
        page.add_text(made.verdict)
    page.add_figure(figure, alt=f"{made.title or 'Transition'}: {rows}", caption=caption)
