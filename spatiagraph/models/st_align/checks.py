"""Checks of the slides that a model starts from, learns from and embeds."""

from collections.abc import Sequence
from typing import Any

from spatiagraph.data.slide import Slide
from spatiagraph.nn.image import TimmEncoder


def check_views(slide: Slide) -> None:
    """Refuse a slide that cannot be learned from.

    Args:
        slide: The slide.

    Raises:
        ValueError: If it lacks an image or counts.
    """
    is_sequenced = bool(slide.depth.any())
    if slide.image is None or not is_sequenced:
        raise ValueError(
            "Expected slides with an image and with counts to align, got slide "
            f"{slide.slide_id!r} without {'an image' if is_sequenced else 'counts'}. Leave it "
            "out of training: embed takes it as it is"
        )


def check_channels(slide: Slide, encoders: Sequence[Any]) -> None:
    """Refuse an image whose channels the encoders do not take.

    Args:
        slide: The slide; one without an image passes.
        encoders: Encoders of images; those that are not of timm take what they take.

    Raises:
        ValueError: If it has other channels.
    """
    for encoder in encoders:
        if slide.image is None or not isinstance(encoder, TimmEncoder):
            continue
        if slide.image.num_channels != encoder.in_channels:
            raise ValueError(
                f"Expected an image of {encoder.in_channels} channels with slide "
                f"{slide.slide_id!r}, as in training, got {slide.image.num_channels}. Leave out an "
                "alpha channel, or train a model on such images"
            )


def with_counts(slides: Sequence[Slide]) -> list[Slide]:
    """Slides with counts; others were only photographed.

    Args:
        slides: The slides.

    Raises:
        ValueError: If none has counts.
    """
    found = [slide for slide in slides if slide.depth.any()]
    if not found:
        raise ValueError(
            f"Expected a slide with counts to start from, got {names_of(slides)} without. Add one "
            "that was sequenced"
        )
    return found


def names_of(slides: Sequence[Slide]) -> str:
    """Names of the first slides.

    Args:
        slides: The slides.
    """
    return ", ".join(repr(slide.slide_id) for slide in slides[:5]) or "no slide"
