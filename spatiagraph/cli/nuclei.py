"""Brightness of nuclei, as commands ask for it and find out."""

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from spatiagraph.data.slide import Slide

Foreground = Literal["bright", "dark"]
NUCLEI = "bright (DAPI) or dark (H&E); dark if not given and images have three channels."


class Nuclei(StrEnum):
    """Brightness of nuclei."""

    bright = "bright"
    dark = "dark"


def nuclei_of(sections: "Sequence[Slide]", given: Nuclei | None) -> Foreground:
    """As given, or bright in grey images and dark in colour, and then said aloud.

    Raises:
        ValueError: A slide has no image, or some are grey and others not.
    """
    from spatiagraph.cli.console import say
    from spatiagraph.data.cohort import one_channel_number

    bare = [section.slide_id for section in sections if section.image is None]
    if bare:
        raise ValueError(f"Expected slides with an image, got none for {bare}: give --image")
    channels = one_channel_number(sections)
    if given is not None:
        return "dark" if given == Nuclei.dark else "bright"
    found: Foreground = "dark" if channels == 3 else "bright"
    say(f"nuclei are taken to be {found}, as in images of {channels} channels")
    return found
