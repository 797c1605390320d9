"""What ``generate`` and ``demo`` share: a generator for the embeddings of a model, and its page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatiagraph import keys

if TYPE_CHECKING:
    from spatiagraph.data.slide import Slide
    from spatiagraph.report import Generation
    from spatiagraph.training.transitions import TransitionFit, TransitionScores


def train_generator(
    sections: "Sequence[Slide]", transitions: Sequence[Sequence[str]], name: str, **options: Any
) -> "TransitionFit":
    """A generator conditioned on the embeddings of cells and of their niches.

    Args:
        sections: Slides with images and embeddings.
        transitions: Rows of (control, target, tag).
        name: Short name of the model that embedded them.
        **options: More arguments of :func:`~spatiagraph.training.fit_transitions`.
    """
    from spatiagraph.training import fit_transitions

    context = [keys.embedding_key(name, level) for level in ("cell", "niche")]
    return fit_transitions(sections, transitions, context=context, **options)


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


def file_name(tag: str) -> str:
    """A transition as part of the name of a file."""
    return "".join(c if c.isalnum() or c in "-_+" else "_" for c in tag)
