"""Slides to make a cohort of: in memory, or as files that are read one at a time."""

import os
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from spatiagraph.data.read import read
from spatiagraph.data.slide import Slide

SlideSource: TypeAlias = Slide | str | os.PathLike[str]
"""A slide, or a file or folder that :func:`spatiagraph.read` opens without arguments."""


def each_slide(slides: Iterable[SlideSource]) -> Iterator[Slide]:
    """Slides one after the other; of those that are files, one is in memory at a time.

    Args:
        slides: The slides.

    Raises:
        TypeError: One is something else.
    """
    if isinstance(slides, Slide | str | os.PathLike):
        slides = [slides]
    for given in slides:
        if isinstance(given, Slide):
            yield given
        elif isinstance(given, str | os.PathLike):
            yield read(given, transcripts=False)
        else:
            raise TypeError(
                f"Expected slides or paths of them, got {type(given).__name__} {given!r:.60}"
            )
