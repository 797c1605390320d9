"""Properties that the slides of a cohort must have in common."""

from collections.abc import Sequence
from typing import Literal

from spatiagraph.data.slide import Slide
from spatiagraph.data.units import lattice


def one_expression(slides: Sequence[Slide]) -> str:
    """``"counts"`` or ``"normalized"``, the same for all slides."""
    kinds = sorted({slide.expression for slide in slides})
    if len(kinds) > 1:
        raise ValueError(f"Expected slides with one kind of expression, got {kinds}")
    return kinds[0]


def one_channel_number(slides: Sequence[Slide]) -> int:
    """Number of channels of all images there are."""
    channels = {s.image.num_channels for s in slides if s.image is not None}
    if not channels:
        names = ", ".join(repr(slide.slide_id) for slide in slides[:5])
        raise ValueError(
            f"Expected an image with the slides, got none for {names}: read them with 'image'"
        )
    if len(channels) > 1:
        raise ValueError(
            f"Expected images with the same number of channels, got {sorted(channels)}"
        )
    return channels.pop()


def nuclei_foreground(slides: Sequence[Slide]) -> Literal["bright", "dark"]:
    """``"dark"`` in images of three channels, as H&E, and ``"bright"`` in others, as DAPI.

    Raises:
        ValueError: A slide has no image, or channels differ.
    """
    bare = [slide.slide_id for slide in slides if slide.image is None]
    if bare:
        raise ValueError(f"Expected slides with an image, got none for {bare}: give image=")
    return "dark" if one_channel_number(slides) == 3 else "bright"


def spot_pitch_um(slides: Sequence[Slide]) -> float | None:
    """Largest distance between spots of capture arrays; ``None`` for cells."""
    grids = [lattice(slide.pos) for slide in slides]
    pitches = [grid.pitch for grid in grids if grid is not None]
    return max(pitches) if pitches else None
