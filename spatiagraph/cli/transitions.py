"""What ``generate`` and ``demo`` share: a generator for the embeddings of a model, and its page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spatiagraph import keys

if TYPE_CHECKING:
    from spatiagraph.data.slide import Slide
    from spatiagraph.report import Generation
    from spatiagraph.training.transition_scores import TransitionScores
    from spatiagraph.training.transitions import TransitionFit

Foreground = Literal["bright", "dark"]
_SHOWN = ("wasserstein_correlation", "ks", "kernel_morphology", "num_images")


def parse_transitions(given: Sequence[str]) -> list[tuple[str, str, str]]:
    """Rows of (control, target, tag) from ``control:target`` or ``control:target:tag``.

    Raises:
        ValueError: If one has another form.
    """
    rows = []
    for text in given:
        parts = [part.strip() for part in text.split(":")]
        if len(parts) not in (2, 3) or not all(parts):
            raise ValueError(
                f"Expected --transition as control:target or control:target:name, got {text!r}"
            )
        control, target, *tag = parts
        rows.append((control, target, tag[0] if tag else f"{control} to {target}"))
    return rows


def nuclei_of(sections: "Sequence[Slide]", given: str | None) -> "Foreground":
    """Whether nuclei are bright or dark: as given, or bright in grey images and dark in colour.

    Raises:
        ValueError: A slide has no image, or some are grey and others not.
    """
    from spatiagraph.cli.console import say
    from spatiagraph.data.cohort import one_channel_number

    bare = [section.slide_id for section in sections if section.image is None]
    if bare:
        raise ValueError(f"Expected slides with an image to generate cells of, got none for {bare}")
    channels = one_channel_number(sections)
    if given is not None:
        return "dark" if given == "dark" else "bright"
    found: Foreground = "dark" if channels == 3 else "bright"
    say(f"nuclei are taken to be {found}, as in images of {channels} channels")
    return found


def train_and_score(
    sections: "Sequence[Slide]",
    transitions: Sequence[Sequence[str]],
    name: str,
    *,
    nuclei: "Foreground",
    max_pairs: int,
    num_steps: int,
    guidance: float = 0.2,
    seed: int,
    **options: Any,
) -> "tuple[TransitionFit, TransitionScores]":
    """A generator conditioned on the embeddings of cells and of their niches, and its scores.

    Args:
        sections: Slides with images and embeddings.
        transitions: Rows of (control, target, tag).
        name: Short name of the model that embedded them.
        nuclei: Whether they are bright or dark.
        max_pairs: Pairs of each transition to score on, at most.
        num_steps: Steps of the integration.
        guidance: How much the condition is exaggerated.
        seed: Of everything that is drawn.
        **options: More arguments of :func:`~spatiagraph.training.fit_transitions`.
    """
    from spatiagraph.training import fit_transitions, score_transitions

    context = [keys.embedding_key(name, level) for level in ("cell", "niche")]
    fitted = fit_transitions(
        sections, transitions, context=context, foreground=nuclei, seed=seed, **options
    )
    scores = score_transitions(
        fitted.generator,
        sections,
        fitted.held_out,
        max_pairs=max_pairs,
        foreground=nuclei,
        num_steps=num_steps,
        guidance=guidance,
        seed=seed,
    )
    return fitted, scores


def as_generations(scores: "TransitionScores") -> "list[Generation]":
    """What reports show of the cells that were scored, transition by transition."""
    from spatiagraph.report import Generation

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


def write_galleries(out: Path, scores: "TransitionScores") -> list[Path]:
    """One picture per transition: control, generated, and matched target cells."""
    from spatiagraph.plot import transition_gallery

    paths = []
    for made in as_generations(scores):
        path = out / f"{file_name(made.title)}.png"
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


def file_name(tag: str) -> str:
    """A transition as part of the name of a file."""
    return "".join(c if c.isalnum() or c in "-_+" else "_" for c in tag)
