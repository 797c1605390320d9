"""Checks of the slides that a model starts from, learns from and embeds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from spatiagraph.data.checks import name_rows
from spatiagraph.data.recipe import Recipe
from spatiagraph.data.slide import Slide
from spatiagraph.nn.image import TimmEncoder


def check_views(slide: Slide) -> None:
    """Refuse a slide that cannot be learned from.

    Args:
        slide: The slide.

    Raises:
        ValueError: If it lacks an image or counts.
    """
    if slide.image is None or not slide.is_counted:
        raise ValueError(
            "Expected slides with an image and with counts to align, got slide "
            f"{slide.slide_id!r} without {'an image' if slide.is_counted else 'counts'}. Leave it "
            "out of training: embed takes it as it is"
        )


def check_covered(slide: Slide) -> None:
    """Refuse an image that some spots do not lie on: black, they would count as tissue.

    Args:
        slide: The slide; one without an image passes.

    Raises:
        ValueError: If a spot lies beside the image.
    """
    if slide.image is None:
        return
    rows = np.flatnonzero(~np.asarray(slide.image.covers(slide.pos), dtype=bool))
    if rows.size:
        raise ValueError(
            f"Expected spots on the image of slide {slide.slide_id!r}, got {rows.size} of "
            f"{slide.num_cells} beside it: {name_rows(slide.adata.obs_names, rows)}. Leave them "
            "out: slide[slide.image.covers(slide.pos)], or read it with crop_um='image'"
        )


def check_features(recipe: Recipe, slide: Slide, width: int | None) -> None:
    """Refuse features of another size than those of training.

    Args:
        recipe: Names the features.
        slide: The slide; one that was only photographed may lack them.
        width: Size of all features together; ``None`` for any.

    Raises:
        ValueError: If they are of another size.
    """
    found = feature_sizes(recipe, slide)
    if width is None or not found or not slide.is_counted:
        return
    if sum(found.values()) != width:
        raise ValueError(
            f"Expected features of {width} numbers in every slide, as in training, got "
            f"{sum(found.values())} in slide {slide.slide_id!r} ({found}): they are of another "
            "network"
        )


def feature_sizes(recipe: Recipe, slide: Slide) -> dict[str, int]:
    """Sizes of the features of a recipe that a slide has, by name.

    Args:
        recipe: Names the features.
        slide: The slide.
    """
    values = {feature.name: feature.values(slide) for feature in recipe.features}
    return {name: value.size(1) for name, value in values.items() if value is not None}


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
    """Slides with counts, without those that were only photographed.

    Args:
        slides: The slides.

    Raises:
        ValueError: If none has counts.
    """
    found = [slide for slide in slides if slide.is_counted]
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
