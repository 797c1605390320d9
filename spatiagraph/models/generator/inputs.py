"""Conditions of a generator, looked up on slides."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from spatiagraph.data.checks import name_rows, nearest
from spatiagraph.data.loader import read_crops
from spatiagraph.data.normalization import log_normalize
from spatiagraph.data.panel import GenePanel
from spatiagraph.data.recipe import Crop
from spatiagraph.data.slide import Slide
from spatiagraph.nn.condition import Condition
from spatiagraph.pairing.signature import Signature

_ENDS = ("control_row", "target_row")
_MOST_PAIRS = 1000  # of a transition whose images are read at once


class PairImages(NamedTuple):
    """Images of both cells of some pairs.

    Attributes:
        control: In [0, 1], ``[N, C, H, W]``.
        target: In [0, 1], ``[N, C, H, W]``.
        transition: Number of the transition of each, ``[N]``.
    """

    control: Tensor
    target: Tensor
    transition: Tensor


def pair_images(
    slides: Sequence[Slide], pairs: pd.DataFrame, crop: Crop, tags: Sequence[str], seed: int = 0
) -> PairImages:
    """Images of pairs, of at most 1,000 of each transition.

    Args:
        slides: Slides with images.
        pairs: Result of :func:`~spatiagraph.pairing.pair_states`.
        crop: Window to read.
        tags: Transitions in order; others are left out.
        seed: Of which pairs are read.
    """
    pairs = pairs[pairs["transition"].isin(tags)].sample(frac=1.0, random_state=seed)
    pairs = pairs.groupby("transition", sort=False).head(_MOST_PAIRS)
    found = []
    for slide in slides:
        mine = pairs[pairs["slide"] == slide.slide_id]
        if len(mine):
            control, target = (read_crops(slide, mine[c].to_numpy(), crop) for c in _ENDS)
            number = pd.Index(tags).get_indexer(pd.Index(mine["transition"]))
            found.append(PairImages(control, target, torch.from_numpy(number).long()))
    control, target, transition = (torch.cat(part) for part in zip(*found, strict=True))
    return PairImages(control, target, transition)


def concatenate(conditions: Sequence[Condition]) -> Condition:
    """Conditions of several groups of cells as one.

    Args:
        conditions: Of each group; all know the same.
    """
    columns = zip(*conditions, strict=True)
    return Condition(*(None if c[0] is None else torch.cat(c) for c in columns))


def embedding(slide: Slide, key: str) -> np.ndarray:
    """An embedding in ``obsm``, ``[N, D]``.

    Raises:
        ValueError: There is none; names what comes nearest.
    """
    if key not in slide.adata.obsm:
        raise ValueError(
            f"Expected obsm[{key!r}] in slide {slide.slide_id!r}: embed it first. "
            f"{nearest(key, [str(k) for k in slide.adata.obsm])}"
        )
    return np.asarray(slide.adata.obsm[key])


def embedded(slide: Slide, context: Iterable[str]) -> np.ndarray:
    """Cells that have all of some embeddings, ``[N]``: one without a niche has none of its niche.

    Args:
        slide: The slide.
        context: Keys of ``obsm``.
    """
    have = [np.isfinite(embedding(slide, key)).all(axis=1) for key in context]
    return np.logical_and.reduce(have, axis=0) if have else np.ones(slide.num_cells, dtype=bool)


def check_embedded(context: Tensor, slide: Slide, rows: np.ndarray) -> None:
    """Refuse cells whose embedding is missing: nothing but NaN could be made of them.

    Args:
        context: Embeddings of some cells, ``[B, E]``.
        slide: Their slide.
        rows: Their rows, ``[B]``.

    Raises:
        ValueError: Some are not finite; names the cells.
    """
    missing = (~context.isfinite().all(1)).numpy()
    if missing.any():
        raise ValueError(
            f"Expected embeddings of all cells, got NaN on slide {slide.slide_id!r} for "
            f"{name_rows(slide.adata.obs_names, rows[missing])}: leave out cells without a niche"
        )


def expression(slide: Slide, panel: GenePanel, rows: np.ndarray) -> Tensor:
    """Expression of some cells on a logarithmic scale, ``[B, G]``; NaN where it is not measured."""
    counts, measured = panel.counts(slide)
    kind = slide.expression
    found = log_normalize(counts[rows], depth=slide.depth[rows], expression=kind)
    values = found.toarray().astype(np.float32)
    values[:, ~measured] = np.nan
    return torch.from_numpy(values)


def embedding_widths(slides: Sequence[Slide], context: Sequence[str]) -> dict[str, int]:
    """Width of each embedding.

    Raises:
        ValueError: A slide lacks one, or has one of another width.
    """
    widths: dict[str, int] = {}
    for key in context:
        found = {embedding(slide, key).shape[1] for slide in slides}
        if len(found) > 1:
            raise ValueError(f"Expected obsm[{key!r}] of one width, got {sorted(found)}")
        widths[key] = found.pop()
    return widths


def signature_features(signature: Signature, tags: Sequence[str], name: str) -> Tensor:
    """Features of each transition as a network reads them, ``[T, F]``.

    Args:
        signature: Of these transitions, and perhaps others.
        tags: The transitions, in order.
        name: For the message.

    Raises:
        ValueError: A transition is missing.
    """
    at = signature.delta.index.get_indexer(pd.Index(tags))
    missing = [tag for tag, i in zip(tags, at, strict=True) if i < 0]
    if missing or not tags:
        raise ValueError(f"Expected all transitions in {name!r}, got none for {missing or tags}")
    return torch.from_numpy(signature.features()[at])


def control_rows(slide: Slide, pairs: pd.DataFrame | None, context: Iterable[str]) -> np.ndarray:
    """Rows of the cells that flows start from: all that are embedded, or those of the pairs."""
    if pairs is None:
        return np.flatnonzero(embedded(slide, context))
    return pairs.loc[pairs["slide"] == slide.slide_id, "control_row"].to_numpy()


def check_channels(num_channels: int, slides: Sequence[Slide]) -> None:
    """Check that the images of slides have as many channels as a generator makes.

    Raises:
        ValueError: Those of a slide have others.
    """
    for slide in slides:
        if slide.image is not None and slide.image.num_channels != num_channels:
            raise ValueError(
                f"Expected images of {num_channels} channels as the generator makes, got "
                f"{slide.image.num_channels} in slide {slide.slide_id!r}"
            )
