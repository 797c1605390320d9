"""``fit_transitions``: from states of cells to a generator that moves between them."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
from spatiagraph.models.generator import ImageGenerator
from spatiagraph.models.generator.inputs import embedded
from spatiagraph.pairing import gene_signature, morphology_signature, pair_states
from spatiagraph.tasks.image_flow import MIN_MORPHOLOGY
from spatiagraph.training.generating import fit_generator
from spatiagraph.training.morphology_fit import MorphologyFit, fit_morphology
from spatiagraph.training.run import Run, run_of
from spatiagraph.training.trainer import check_patience

logger = logging.getLogger(__name__)

_SIDES = {
    "pairs": "tissue to train on",
    "validation": "fifth that says which weights are best",
    "held_out": "fifth that is held out",
}
_VALIDATED = 32  # pairs that tell good images from bad ones
NUM_BLOCKS = 5
"""One of so many folds of blocks of tissue is kept for testing, and one for validation."""


@dataclass(frozen=True)
class Pairing:
    """Options of pairing cells of two states, see :func:`~spatiagraph.pairing.pair_states`.

    Attributes:
        niche_key: Column of ``obs`` with niches to pair within; ``None`` pairs within slides.
        fallback: Where no niche of a slide holds enough of both states: ``"skip"`` or ``"global"``.
        match: How a partner is chosen.
        epsilon: Strength of the blur, in units of the median distance.
        mass_penalty: Unbalanced transport; ``None`` for balanced.
        min_cells: Cells that a niche must hold in either state.
        max_cells: Cells of either state taken from a niche; ``None`` takes all.
        num_components: Principal components.
        max_iter: Iterations of the transport at most.
    """

    niche_key: str | None = None
    fallback: Literal["skip", "global"] = "skip"
    match: Literal["argmax", "sample", "assignment", "barycentric"] = "argmax"
    epsilon: float = 0.05
    mass_penalty: float | None = None
    min_cells: int = 5
    max_cells: int | None = None
    num_components: int = 50
    max_iter: int = 5000


@dataclass(frozen=True)
class TransitionFit:
    """A generator, and what it was trained and can be tested on.

    Attributes:
        generator: The trained generator.
        pairs: Pairs it was trained on.
        held_out: Pairs of cells in blocks of tissue that training never saw.
        morphology: Network of morphology it was aligned with, if any.
        history: One row per epoch.
        validation: Pairs by which weights were chosen, if any were.
    """

    generator: ImageGenerator
    pairs: pd.DataFrame
    held_out: pd.DataFrame
    morphology: MorphologyFit | None
    history: pd.DataFrame
    validation: pd.DataFrame | None = None


def fit_transitions(
    slides: Slide | Sequence[Slide],
    generator: ImageGenerator,
    pairs: pd.DataFrame | Pairing | None = None,
    *,
    foreground: Literal["bright", "dark"] = "bright",
    morphology_epochs: int = 0,
    max_nuclei: int = 20_000,
    batch_size: int | None = None,
    validate: bool = True,
    run: Run | None = None,
    **options: Any,
) -> TransitionFit:
    """Pair cells, measure what transitions do, and train a generator on all of it, in place.

    A fifth of the tissue, in blocks, is held out: its cells are paired among themselves. Another
    fifth says which weights are kept: those whose images are nearest to real ones, which may be
    those before the first step. All that is learned or averaged is of the rest. Cells whose window
    reaches beyond the image, or without one of the embeddings, are left out.

    What the generator was made with is filled in: the scale of its embeddings; with signatures of
    genes, what transitions do to the genes of all slides; with those of morphology, what they do to
    nuclei.

    Args:
        slides: Cohort with images and embeddings.
        generator: New generator that knows its transitions and the column of their states, as
            :meth:`~spatiagraph.models.ImageGenerator.for_slides` makes it.
        pairs: How cells are paired; or the pairs themselves, as
            :func:`~spatiagraph.pairing.pair_states` gives them: those across the border of what is
            held out are left out.
        foreground: Whether nuclei are ``"bright"`` or ``"dark"``.
        morphology_epochs: Passes over the cells of a network of morphology, in whose eyes images
            are aligned with those of target cells, as published; with a signature of morphology.
            None by default: on a region that training had not seen, images became worse by it.
        max_nuclei: Nuclei of all slides that this network learns from, drawn at random where there
            are more: their crops are in memory.
        batch_size: Pairs of a mini-batch; 32, or 16 for each transition where that is more, when
            not given: fewer could not be compared as distributions.
        validate: Whether a fifth says which weights are kept; it is trained on as well where not,
            and where fewer than 32 pairs of its cells are found, which is logged.
        run: How to train the generator, see :class:`~spatiagraph.training.Run`; 30 epochs with a
            moving average of decay 0.999 when not given. ``out`` is the folder of ``pairs.csv``,
            ``validation.csv``, ``held_out.csv`` and the runs ``morphology`` and ``generator``.
        **options: Fields of ``run`` by name.

    Raises:
        ValueError: Slides, states and transitions do not fit together, or no pair is left to train
            on or to test on.
    """
    run = run_of(run, options, default=Run(max_epochs=30, average=0.999), taken_by=fit_transitions)
    check_patience(run, validate)
    slides = [slides] if isinstance(slides, Slide) else list(slides)
    morphology_run = None
    if morphology_epochs:
        morphology_run = Run(
            max_epochs=morphology_epochs,
            accelerator=run.accelerator,
            seed=run.seed,
            progress=run.progress,
            resume=run.resume,
            out=None if run.out is None else Path(run.out) / "morphology",
        )
    pairs = Pairing() if pairs is None else pairs
    sides, among = _sides(slides, generator, pairs, validate, run.seed)
    learned = _fill_in(
        generator,
        slides,
        sides["pairs"],
        among,
        foreground,
        morphology_run,
        max_nuclei=max_nuclei,
        progress=run.progress,
    )
    if run.out is not None:
        for name, table in sides.items():
            write_csv(table, Path(run.out) / f"{name}.csv")
    result = fit_generator(
        generator,
        slides,
        sides["pairs"],
        profile=None if learned is None else learned.model,
        batch_size=batch_size or max(32, 2 * MIN_MORPHOLOGY * len(generator.transitions)),
        validation=sides.get("validation"),
        run=run,
        out=None if run.out is None else Path(run.out) / "generator",
    )
    return TransitionFit(
        generator,
        sides["pairs"],
        sides["held_out"],
        learned,
        result.history,
        sides.get("validation"),
    )


def _sides(
    slides: Sequence[Slide],
    generator: ImageGenerator,
    pairs: pd.DataFrame | Pairing,
    validate: bool,
    seed: int,
) -> tuple[dict[str, pd.DataFrame], dict[str, NDArray[np.bool_]]]:
    """Pairs of each side of a split, and the cells that are trained on."""
    split = _split(slides, generator, seed, validate)
    sides = {"held_out": _side(slides, generator, pairs, "held_out", split["held_out"], seed)}
    if validate:
        try:
            found = _side(slides, generator, pairs, "validation", split["validation"], seed)
            problem = f"{len(found)} pairs are too few to tell, of {_VALIDATED} at least"
        except ValueError as err:  # of too few cells: the other side had all else
            found, problem = pd.DataFrame(), str(err)
        if len(found) >= _VALIDATED:
            sides["validation"] = found
        else:
            logger.warning("The weights after the last step are kept, be they worse: %s", problem)
            split = _split(slides, generator, seed, validate=False)
    sides["pairs"] = _side(slides, generator, pairs, "pairs", split["pairs"], seed)
    return sides, split["pairs"]


def _side(
    slides: Sequence[Slide],
    generator: ImageGenerator,
    pairs: pd.DataFrame | Pairing,
    name: str,
    among: Mapping[str, NDArray[np.bool_]],
    seed: int,
) -> pd.DataFrame:
    """Pairs of one side of the split."""
    place = _SIDES[name]
    transitions = generator.transitions
    if not transitions or generator.states_key is None:
        raise ValueError(
            "Expected a generator with 'transitions' and 'states_key', got one without"
        )
    if isinstance(pairs, Pairing):
        try:
            with warnings.catch_warnings():
                if name == "validation":  # what is missing there is not compared, no more
                    warnings.simplefilter("ignore", UserWarning)
                table = pair_states(
                    slides,
                    transitions,
                    states_key=generator.states_key,
                    among=among,
                    seed=seed,
                    **asdict(pairs),
                )
        except ValueError as err:
            raise ValueError(f"In the {place}: {err}") from err
    else:
        inside = np.zeros(len(pairs), dtype=bool)
        for slide, mask in among.items():
            rows = np.flatnonzero(pairs["slide"] == slide)
            ends = pairs[["control_row", "target_row"]].to_numpy(np.int64)[rows]
            inside[rows] = mask[ends].all(axis=1)
        table = pairs[inside].reset_index(drop=True)
        if not len(table):
            raise ValueError(f"In the {place}: Expected pairs, got none of {len(pairs)}")
    missing = [t.tag for t in transitions if t.tag not in set(table["transition"])]
    if missing and name == "pairs":
        raise ValueError(
            f"Expected pairs of every transition to train on, got none for {missing}: ask for the "
            "others alone, or lower min_cells of the Pairing"
        )
    return table


def _fill_in(
    generator: ImageGenerator,
    slides: Sequence[Slide],
    pairs: pd.DataFrame,
    among: Mapping[str, NDArray[np.bool_]],
    foreground: Literal["bright", "dark"],
    run: Run | None,
    *,
    max_nuclei: int,
    progress: bool,
) -> MorphologyFit | None:
    """Give a generator scale and signatures of pairs; train a network of morphology if asked to."""
    conditioner = generator.conditioner
    assert conditioner is not None  # it has transitions
    signatures: dict[str, Any] = {}
    if conditioner.delta_genes.size(1):
        panel = GenePanel.from_slides(list(slides))
        signatures["delta_genes"] = gene_signature(
            slides, pairs, panel=panel, donors=None, among=among
        )
    learned = None
    if conditioner.delta_morphology.size(1):
        at: dict[str, Any] = {
            "crop": generator.crop,
            "progress": progress,
        }
        features = {
            slide.slide_id: measure_nuclei(
                slide, foreground=foreground, among=among[slide.slide_id], **at
            )
            for slide in slides
        }
        signatures["delta_morphology"] = morphology_signature(slides, features, pairs, donors=None)
        if run is not None:
            nuclei = read_nuclei(slides, features, max_cells=max_nuclei, seed=run.seed, **at)
            learned = fit_morphology(*nuclei, run=run)
    generator.initialize(slides, pairs, **signatures)
    return learned


def _split(
    slides: Sequence[Slide], generator: ImageGenerator, seed: int, validate: bool
) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Cells of each side, of those that are embedded and wholly on the image."""
    folds = {"held_out": 0, "validation": 1} if validate else {"held_out": 0}
    split: dict[str, dict[str, NDArray[np.bool_]]] = {name: {} for name in ("pairs", *folds)}
    for slide in slides:
        block = spatial_blocks(slide.pos, num_folds=NUM_BLOCKS, seed=seed)
        whole = inside_image(slide, generator.crop) & embedded(slide, generator.context)
        split["pairs"][slide.slide_id] = whole & (block >= len(folds))
        for name, fold in folds.items():
            split[name][slide.slide_id] = whole & (block == fold)
    return split
