"""Transitions of ``generate`` and ``demo``: as they are typed, drawn and printed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spatiagraph.inference import TransitionScores

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


def write_galleries(out: Path, scores: "TransitionScores") -> list[Path]:
    """One picture per transition: control, generated, and matched target cells."""
    from spatiagraph.cli.console import file_names
    from spatiagraph.plot import transition_gallery
    from spatiagraph.report.generation import as_generations

    paths = []
    shown = as_generations(scores)
    for made, name in zip(shown, file_names([made.title for made in shown]), strict=True):
        path = out / f"{name}.png"
        transition_gallery(
            made.control, made.generated, made.target, window_um=made.window_um, save=path
        )
        paths.append(path)
    return paths


def print_scores(scores: "TransitionScores") -> None:
    """Print how generated cells compare with real ones, beside the bounds.

    A line says so where training made images worse than the map that their flows start with.
    """
    import pandas as pd

    from spatiagraph.cli.console import print_table, say

    shown = scores.table.xs("all", level="transition").filter(items=_SHOWN)
    print_table(
        pd.DataFrame(shown),
        f"\n{len(scores.pairs):,} cells in another state, on tissue that training never saw",
    )
    if "start" in shown.index and "kernel_morphology" in shown:
        made, start = shown.loc["generated"], shown.loc["start"]
        if made["ks"] < start["ks"] and made["kernel_morphology"] > start["kernel_morphology"]:
            say(
                "Training made these images worse than the map that they start with (start): more "
                "passes or more cells are needed"
            )
