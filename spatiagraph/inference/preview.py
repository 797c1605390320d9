"""``preview_transitions``: what cells of one slide would look like in another state, in minutes."""

import os
from collections.abc import Sequence
from typing import Literal

from spatiagraph.data.agreement import nuclei_foreground, spot_pitch_um
from spatiagraph.data.recipe import Crop
from spatiagraph.data.slide import Slide
from spatiagraph.flow.sampling import Sampling
from spatiagraph.inference.domains import cluster_states
from spatiagraph.inference.embedded import model_name
from spatiagraph.inference.transition_scores import (
    TransitionScores,
    fit_and_score_transitions,
    transition_generator,
)
from spatiagraph.training.run import Run
from spatiagraph.training.transitions import Pairing

MIN_CELLS = 1000
"""Cells of which some of each state can be held out."""
MAX_PAIRS = 1000
"""Pairs of a transition, at most."""
NUM_EPOCHS = 2
"""Passes over the pairs."""
# no less than 24 px and 12 passes on the synthetic tissue: ks of 0.63 before any, after 3 and 6
_SIDE_PX = 16


def preview_transitions(
    slide: Slide,
    transitions: Sequence[Sequence[str]] = (),
    *,
    states_key: str | None = None,
    foreground: Literal["bright", "dark"] | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
) -> TransitionScores:
    """Train a small generator on an embedded slide for a few passes, and score it.

    For a generator to keep, see :func:`fit_and_score_transitions`.

    Args:
        slide: A slide with an image that :func:`~spatiagraph.embed` has embedded.
        transitions: Rows of (control, target, tag). Without any, clusters of the embeddings are the
            states, and are written to ``obs``, see :func:`cluster_states`.
        states_key: Column of ``obs`` with the states of ``transitions``.
        foreground: Whether nuclei are ``"bright"`` or ``"dark"``; by the channels of the image when
            ``None``.
        seed: Seed of all that is drawn.
        out: Folder for the generator.

    Raises:
        ValueError: The slide has no image, spots in place of cells, or too few cells to learn from;
            or states and transitions do not fit it.
    """
    if (states_key is None) != (not transitions):
        raise ValueError("Expected 'states_key' and 'transitions' together, got one of them")
    rows: Sequence[Sequence[str]] = transitions
    if not transitions:
        _check_cells(slide)
        states_key, rows = cluster_states(slide, model_name(slide.adata), seed)
    generator = transition_generator(
        [slide],
        rows,
        states_key=str(states_key),
        crop=Crop(size_px=_SIDE_PX),
        signatures=["genes"],
        seed=seed,
    )
    return fit_and_score_transitions(
        [slide],
        generator,
        Pairing(max_cells=MAX_PAIRS),
        foreground=foreground or nuclei_foreground([slide]),
        max_pairs=40,
        sampling=Sampling(10, seed=seed),
        run=Run(max_epochs=NUM_EPOCHS, lr=2e-3, average=0.999, seed=seed, out=out),
    )[1]


def _check_cells(slide: Slide) -> None:
    """Refuse a slide of which images of single cells in another state cannot be learned."""
    if slide.image is None:
        raise ValueError(f"Expected an image with slide {slide.slide_id!r}: there is no image")
    if spot_pitch_um([slide]) is not None:
        raise ValueError("Expected single cells, got spots: a spot holds many cells")
    if slide.num_cells < MIN_CELLS:
        raise ValueError(
            f"Expected a slide of more cells: they need {MIN_CELLS:,} cells, this is "
            f"{slide.num_cells:,}"
        )
