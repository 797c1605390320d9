"""Option for the brightness of nuclei, and its default by the image."""

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
    from spatiagraph.data.agreement import nuclei_foreground, one_channel_number

    found: Foreground = nuclei_foreground(sections)
    if given is not None:
        return "dark" if given == Nuclei.dark else "bright"
    say(f"nuclei are taken to be {found}, as in images of {one_channel_number(sections)} channels")
    return found
