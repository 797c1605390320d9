"""Generators of transitions between states: made for embedded slides, trained, scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.data.loader import read_crops
from spatiagraph.data.recipe import Crop
from spatiagraph.data.slide import Slide
from spatiagraph.evaluate.generation import score_generation
from spatiagraph.flow.sampling import Sampling
from spatiagraph.inference.embedded import check_level, one_model_name
from spatiagraph.inference.generating import generate
from spatiagraph.models.generator import TINY, GeneratorSize, ImageGenerator
from spatiagraph.pairing.transitions import Transitions
from spatiagraph.training.run import Run
from spatiagraph.training.transitions import Pairing, TransitionFit, fit_transitions

_AT_ONCE = 256  # images that an autoencoder decodes


@dataclass(frozen=True)
class TransitionScores:
    """Scores and images of cells that training never saw.

    Attributes:
        table: One row per generator (bounds among them) and transition, see
            :func:`~spatiagraph.evaluate.score_generation`.
        pairs: The pairs that were scored, ``P`` rows.
        control: Images of the control cells, ``[P, C, H, W]``.
        generated: What the generator made of them, ``[P, C, H, W]``.
        target: Images of their partners, ``[P, C, H, W]``.
        window_um: Side of the images in µm, if it is known.
    """

    table: pd.DataFrame
    pairs: pd.DataFrame
    control: NDArray[np.float32]
    generated: NDArray[np.float32]
    target: NDArray[np.float32]
    window_um: float | None = None


def transition_generator(
    slides: Sequence[Slide],
    transitions: Transitions,
    size: GeneratorSize = TINY,
    *,
    states_key: str,
    signatures: Sequence[Literal["genes", "morphology"]] = ("genes", "morphology"),
    crop: Crop = Crop(),
    seed: int = 0,
) -> ImageGenerator:
    """Build a generator conditioned on the embeddings of cells and of their first level.

    Args:
        slides: Slides with images, that one model has embedded.
        transitions: Rows of (control, target, tag).
        size: Widths and depths.
        states_key: Column of ``obs`` with the states.
        signatures: What transitions do on average that is conditioned on.
        crop: Window around a cell that images show, and their size.
        seed: Seed of the first weights.

    Raises:
        ValueError: Slides are not embedded, or with different models.
    """
    name, first = one_model_name(slides), check_level(slides[0].adata, None)
    return ImageGenerator.for_slides(
        slides,
        size,
        context=list(dict.fromkeys(keys.embedding_key(name, x) for x in ("cell", first))),
        transitions=transitions,
        states_key=states_key,
        signatures=signatures,
        crop=crop,
        seed=seed,
    )


def fit_and_score_transitions(
    slides: Sequence[Slide],
    generator: ImageGenerator,
    pairs: Pairing,
    *,
    foreground: Literal["bright", "dark"] = "bright",
    max_pairs: int | None = 500,
    sampling: Sampling = Sampling(),
    run: Run,
) -> tuple[TransitionFit, TransitionScores]:
    """Train a generator on most of the tissue, in place, and score it on the rest.

    Args:
        slides: Slides with images and embeddings.
        generator: A new generator.
        pairs: How cells are paired.
        foreground: Whether nuclei are ``"bright"`` or ``"dark"``.
        max_pairs: Pairs of each transition to score on, at most.
        sampling: How images are generated.
        run: How the generator is trained.

    Raises:
        ValueError: Slides, states and transitions do not fit together.
    """
    fitted = fit_transitions(slides, generator, pairs, foreground=foreground, run=run)
    scores = score_transitions(
        fitted.generator,
        slides,
        fitted.held_out,
        max_pairs=max_pairs,
        foreground=foreground,
        sampling=sampling,
    )
    return fitted, scores


def score_transitions(
    generator: ImageGenerator,
    slides: Sequence[Slide],
    pairs: pd.DataFrame,
    *,
    max_pairs: int | None = 500,
    foreground: Literal["bright", "dark"] = "bright",
    sampling: Sampling = Sampling(),
    device: str | torch.device = "auto",
    progress: bool = True,
    **scoring: Any,
) -> TransitionScores:
    """Generate the controls of pairs under their transition and a wrong one, and score both.

    Args:
        generator: A trained generator.
        slides: Cohort of the pairs.
        pairs: Pairs that training has not seen, such as :attr:`TransitionFit.held_out`.
        max_pairs: Pairs of each transition, at most, drawn by the seed of ``sampling``.
        foreground: Whether nuclei are ``"bright"`` or ``"dark"``.
        sampling: Steps, rule and guidance of the flow, and the seed of all that is drawn.
        device: Where the generator runs.
        progress: Show a progress bar.
        **scoring: More arguments of :func:`~spatiagraph.evaluate.score_generation`.

    Raises:
        ValueError: Pairs do not fit the slides, or too few can be measured.
    """
    tags = [transition.tag for transition in generator.transitions]
    known = {slide.slide_id: slide for slide in slides}
    _check_pairs(pairs, list(known), tags)
    if max_pairs is not None:
        order = pairs.sample(frac=1.0, random_state=sampling.seed)
        pairs = order.groupby("transition", sort=False).head(max_pairs).sort_index()
    pairs = pairs.reset_index(drop=True)
    size = (generator.image_channels, generator.size_px, generator.size_px)
    sides = ("control", "generated", "wrong", "target", "start")
    images = {side: np.empty((len(pairs), *size), dtype=np.float32) for side in sides}
    for (slide_id, tag), group in pairs.groupby(["slide", "transition"], sort=False):
        slide, rows = known[str(slide_id)], group["control_row"].to_numpy()
        wrong = tags[(tags.index(str(tag)) + 1) % len(tags)]
        for side, transition in (("generated", str(tag)), ("wrong", wrong))[: len(tags)]:
            made = generate(
                generator,
                slide,
                transition=transition,
                cells=rows,
                sampling=sampling,
                device=device,
                progress=progress,
            )
            images[side][group.index] = made.images[:, 0]
            images["control"][group.index] = made.control
        if generator.transport is not None:
            images["start"][group.index] = _start(generator, made.control, str(tag))
        images["target"][group.index] = read_crops(
            slide, group["target_row"].to_numpy(), generator.crop
        )
    table = score_generation(
        images["generated"],
        images["target"],
        images["control"],
        pairs["transition"].tolist(),
        wrong=images["wrong"] if len(tags) > 1 else None,
        start=None if generator.transport is None else images["start"],
        target_id=list(zip(pairs["slide"], pairs["target_row"], strict=True)),
        mpp=generator.window_um / generator.size_px,
        foreground=foreground,
        component="center",
        seed=sampling.seed,
        **scoring,
    )
    return TransitionScores(
        table,
        pairs,
        images["control"],
        images["generated"],
        images["target"],
        window_um=generator.window_um,
    )


@torch.no_grad()
def _start(generator: ImageGenerator, control: NDArray[np.float32], tag: str) -> NDArray:
    """Images that the flows of some cells start at, ``[N, C, H, W]`` in [0, 1]."""
    found = []
    for part in torch.from_numpy(control).split(_AT_ONCE):
        number = torch.full((len(part),), generator.number_of(tag), device=generator.device)
        x = generator.start(part.to(generator.device), len(part), transition=number)
        found.append(generator.decode(x).clamp(0, 1).float().cpu().numpy())
    return np.concatenate(found)


def _check_pairs(pairs: pd.DataFrame, slides: list[str], tags: list[str]) -> None:
    for key, known in (("slide", slides), ("transition", tags)):
        found = set(pairs[key]) if key in pairs else set()
        if not found or found - set(known):
            raise ValueError(
                f"Expected pairs with a {key!r} of {known}, got {sorted(found - set(known))}"
            )
