"""Generators of ``generate`` and ``demo``: for the embeddings of a model, and their page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spatiagraph import keys
from spatiagraph.cli.nuclei import Foreground

if TYPE_CHECKING:
    from spatiagraph.data.recipe import Crop
    from spatiagraph.data.slide import Slide
    from spatiagraph.flow.sampling import Sampling
    from spatiagraph.inference import TransitionScores
    from spatiagraph.models import GeneratorSize, ImageGenerator
    from spatiagraph.training import Pairing, Run, TransitionFit

_SHOWN = ("wasserstein_correlation", "ks", "kernel_morphology", "num_images")


def parse_transitions(given: Sequence[str]) -> list[tuple[str, str, str]]:
    """Rows of (control, target, tag) from ``control:target`` or ``control:target:tag``.

    Where two colons stand, they separate in place of one, so that names may hold colons:
    ``CL:0000084::CL:0000236``.

    Raises:
        ValueError: If one has another form.
    """
    rows = []
    for text in given:
        parts = [part.strip() for part in text.split("::" if "::" in text else ":")]
        if len(parts) not in (2, 3) or not all(parts):
            raise ValueError(
                f"Expected --transition as control:target or control:target:name, got {text!r}. "
                "Names with a colon in them are separated by two: control::target"
            )
        control, target, *tag = parts
        rows.append((control, target, tag[0] if tag else f"{control} to {target}"))
    return rows


def make_generator(
    sections: "Sequence[Slide]",
    transitions: Sequence[Sequence[str]],
    name: str,
    size: "GeneratorSize",
    *,
    states_key: str,
    crop: "Crop",
    signatures: Sequence[Literal["genes", "morphology"]] = ("genes", "morphology"),
    seed: int = 0,
) -> "ImageGenerator":
    """A generator conditioned on the embeddings of cells and of their niches, and on transitions.

    Args:
        sections: Slides with images and embeddings.
        transitions: Rows of (control, target, tag).
        name: Short name of the model that embedded them.
        size: Widths and depths.
        states_key: Column of ``obs`` with the states.
        crop: Window that images show, and their size.
        signatures: What transitions do on average that is conditioned on.
        seed: Seed of the first weights.
    """
    from spatiagraph.models import ImageGenerator

    return ImageGenerator.for_slides(
        sections,
        size,
        context=[keys.embedding_key(name, level) for level in ("cell", "niche")],
        transitions=transitions,
        states_key=states_key,
        signatures=signatures,
        crop=crop,
        seed=seed,
    )


def train_and_score(
    sections: "Sequence[Slide]",
    generator: "ImageGenerator",
    pairs: "Pairing",
    run: "Run",
    *,
    nuclei: Foreground,
    max_pairs: int,
    sampling: "Sampling",
) -> "tuple[TransitionFit, TransitionScores]":
    """A generator that was trained on most of the tissue, and its scores on the rest.

    Args:
        sections: Slides with images and embeddings.
        generator: A new generator.
        pairs: How cells are paired.
        run: How the generator is trained.
        nuclei: Whether they are bright or dark.
        max_pairs: Pairs of each transition to score on, at most.
        sampling: How images are generated.
    """
    from spatiagraph.inference import score_transitions
    from spatiagraph.training import fit_transitions

    fitted = fit_transitions(sections, generator, pairs, foreground=nuclei, run=run)
    scores = score_transitions(
        fitted.generator,
        sections,
        fitted.held_out,
        max_pairs=max_pairs,
        foreground=nuclei,
        sampling=sampling,
    )
    return fitted, scores


def write_galleries(out: Path, scores: "TransitionScores") -> list[Path]:
    """One picture per transition: control, generated, and matched target cells."""
    from spatiagraph.cli.console import file_names
    from spatiagraph.plot import transition_gallery
    from spatiagraph.report.generation import as_generations

    paths = []
    shown = as_generations(scores)
    for made, name in zip(shown, file_names([made.title for made in shown]), strict=True):
        path = out / f"{name}.png"
        transition_gallery(made.control, made.generated, made.target, save=path)
        paths.append(path)
    return paths


def print_scores(scores: "TransitionScores") -> None:
    """Print how generated cells compare with real ones, beside the bounds."""
    import pandas as pd

    from spatiagraph.cli.console import print_table

    shown = scores.table.xs("all", level="transition").filter(items=_SHOWN)
    print_table(
        pd.DataFrame(shown),
        f"\n{len(scores.pairs):,} cells in another state, on tissue that training never saw",
    )
