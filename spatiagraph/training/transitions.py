"""``fit_transitions``: from states of cells to a generator that moves between them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph._tables import write_csv
from spatiagraph.data.loader import inside_image
from spatiagraph.data.morphology import measure_nuclei, read_nuclei
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.slide import Slide
from spatiagraph.data.splits import spatial_blocks
from spatiagraph.models.generator import PRESETS, ImageGenerator
from spatiagraph.models.generator.inputs import embedded
from spatiagraph.nn.unet import check_side
from spatiagraph.pairing import gene_signature, morphology_signature, pair_states
from spatiagraph.pairing.transitions import Transitions, as_transitions
from spatiagraph.tasks.image_flow import MIN_MORPHOLOGY
from spatiagraph.training.generating import fit_generator
from spatiagraph.training.morphology_fit import MorphologyFit, fit_morphology
from spatiagraph.training.trainer import check_numbers

NUM_BLOCKS = 5
"""One of so many folds of blocks of tissue is kept for testing."""


@dataclass(frozen=True)
class TransitionFit:
    """A generator, and what it was trained and can be tested on.

    Attributes:
        generator: The trained generator.
        pairs: Pairs it was trained on.
        held_out: Pairs of cells in blocks of tissue that training never saw.
        morphology: Network of morphology it was aligned with, if any.
        history: One row per epoch.
    """

    generator: ImageGenerator
    pairs: pd.DataFrame
    held_out: pd.DataFrame
    morphology: MorphologyFit | None
    history: pd.DataFrame


def fit_transitions(
    slides: Sequence[Slide],
    transitions: Transitions,
    *,
    states_key: str,
    niche_key: str | None = None,
    context: Sequence[str],
    preset: Literal["tiny", "small", "base"] = "tiny",
    size_px: int = 32,
    window_um: float = 13.6,
    use_morphology: bool = True,
    foreground: Literal["bright", "dark"] = "bright",
    pairing: Mapping[str, Any] | None = None,
    max_epochs: int = 30,
    morphology_epochs: int = 30,
    batch_size: int | None = None,
    lr: float = 1e-3,
    accelerator: str = "auto",
    trainer: Mapping[str, Any] | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> TransitionFit:
    """Pair cells, measure what transitions do, and train a generator on all of it.

    A fifth of the tissue, in blocks, is held out: its cells are paired among themselves. All that
    is learned or averaged is of the rest. Cells whose window reaches beyond the image, or without
    one of the embeddings, are left out.

    Args:
        slides: Cohort with images and embeddings.
        transitions: Table of ``control``, ``target`` and ``tag``, or rows of these.
        states_key: Column of ``obs`` with states.
        niche_key: Column of ``obs`` with niches to pair within; ``None`` pairs within slides.
        context: Keys of ``obsm`` to condition on.
        preset: Size of the network.
        size_px: Side of the images in pixels.
        window_um: Side of their window.
        use_morphology: Whether to condition on what transitions do to morphology, and to align
            images with the morphology of target cells.
        foreground: Whether nuclei are ``"bright"`` or ``"dark"``.
        pairing: More arguments of :func:`~spatiagraph.pairing.pair_states`.
        max_epochs: Passes over the pairs.
        morphology_epochs: Passes of the network of morphology over the cells.
        batch_size: Pairs of a mini-batch; 32, or 16 for each transition where that is more, when
            not given: fewer could not be compared as distributions.
        lr: Peak learning rate.
        accelerator: ``"auto"``, ``"cpu"``, ``"gpu"``, … as in Lightning.
        trainer: More arguments of :func:`~spatiagraph.training.fit_generator`, such as ``average``,
            ``precision`` or ``devices``.
        seed: Of everything that is drawn.
        out: Folder for ``pairs.csv``, ``held_out.csv`` and the runs ``morphology`` and
            ``generator``, which a repeated call resumes.
        progress: Show progress bars.
        **options: More arguments of :class:`~spatiagraph.models.ImageGenerator`.

    Raises:
        ValueError: Slides, states and transitions do not fit together, or no pair is left to train
            on or to test on.
    """
    for epochs in (max_epochs, morphology_epochs):
        check_numbers(max_epochs=epochs, lr=lr)
    asked = as_transitions(transitions)
    check_side(size_px, {**PRESETS.get(preset, {}), **options}.get("multipliers"))
    split = _split(slides, window_um, context, seed)
    sides = {}
    for name, masks in split.items():
        try:
            sides[name] = pair_states(
                slides,
                asked,
                states_key=states_key,
                niche_key=niche_key,
                among=masks,
                seed=seed,
                **{"max_cells": None, **(pairing or {})},
            )
        except ValueError as err:
            side = "four fifths to train on" if name == "pairs" else "fifth that is held out"
            raise ValueError(f"In the {side}: {err}") from err
    pairs = sides["pairs"]
    missing = [t.tag for t in asked if t.tag not in set(pairs["transition"])]
    if missing:
        raise ValueError(
            f"Expected pairs of every transition to train on, got none for {missing}: ask for the "
            "others alone, or lower min_cells in 'pairing'"
        )
    panel = GenePanel.from_slides(list(slides))
    deltas: dict[str, Any] = {
        "delta_genes": gene_signature(slides, pairs, panel=panel, donors=None, among=split["pairs"])
    }
    folder = None if out is None else Path(out)
    learned = None
    if use_morphology:
        features = {
            slide.slide_id: measure_nuclei(
                slide,
                window_um=window_um,
                size_px=size_px,
                foreground=foreground,
                among=split["pairs"][slide.slide_id],
                progress=progress,
            )
            for slide in slides
        }
        deltas["delta_morphology"] = morphology_signature(slides, features, pairs, donors=None)
        learned = fit_morphology(
            *read_nuclei(slides, features, window_um=window_um, size_px=size_px, progress=progress),
            max_epochs=morphology_epochs,
            accelerator=accelerator,
            seed=seed,
            out=None if folder is None else folder / "morphology",
            progress=progress,
        )
    generator = ImageGenerator.for_slides(
        slides,
        preset,
        context=context,
        pairs=pairs,
        transitions=asked,
        states_key=states_key,
        size_px=size_px,
        window_um=window_um,
        seed=seed,
        **deltas,
        **options,
    )
    if folder is not None:
        for name, table in sides.items():
            write_csv(table, folder / f"{name}.csv")
    result = fit_generator(
        generator,
        slides,
        pairs,
        profile=None if learned is None else learned.model,
        max_epochs=max_epochs,
        lr=lr,
        batch_size=batch_size or max(32, 2 * MIN_MORPHOLOGY * len(asked)),
        accelerator=accelerator,
        seed=seed,
        out=None if folder is None else folder / "generator",
        progress=progress,
        **(trainer or {}),
    )
    return TransitionFit(generator, pairs, sides["held_out"], learned, result.history)


def _split(
    slides: Sequence[Slide], window_um: float, context: Sequence[str], seed: int
) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Cells to train on and cells held out, of those that are embedded and wholly on the image."""
    split: dict[str, dict[str, NDArray[np.bool_]]] = {"pairs": {}, "held_out": {}}
    for slide in slides:
        test = spatial_blocks(slide.pos, num_folds=NUM_BLOCKS, seed=seed) == 0
        whole = inside_image(slide, window_um) & embedded(slide, context)
        split["pairs"][slide.slide_id] = whole & ~test
        split["held_out"][slide.slide_id] = whole & test
    return split
