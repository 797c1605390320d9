"""Embeddings of a slide by a run's model of before training, to score beside those of after it."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatiagraph.data.content import content_hash
from spatiagraph.data.notes import our_notes
from spatiagraph.data.slide import Slide
from spatiagraph.inference.embedded import embedding_record
from spatiagraph.inference.embedding import embed_data
from spatiagraph.keys import embedding_key
from spatiagraph.models.base import SlideModel
from spatiagraph.nn.weights import weights_hash
from spatiagraph.training.devices import as_device
from spatiagraph.training.folder import MODEL
from spatiagraph.training.start import load_start

BEFORE_TRAINING = ", before training"
"""End of the name of a row of scores, after the name of the row that it stands beside."""


def embed_before_training(
    slide: Slide,
    run: str | os.PathLike[str],
    slots: Collection[str],
    *,
    progress: bool = False,
) -> dict[str, NDArray[np.float32]]:
    """Embeddings of a slide by the model of a run as it was before its first step.

    Nothing is written to the slide; :func:`~spatiagraph.embed` with the model of
    :func:`~spatiagraph.training.load_start` does so.

    Args:
        slide: A slide that the trained model of the run has embedded.
        run: Folder of the run.
        slots: Slots of ``obsm``; those that are not of the model are left out.
        progress: Show a progress bar.

    Returns:
        Slot → what would stand there had the model not been trained, ``[N, D]``.

    Raises:
        ValueError: The run has kept no such model, none of the slots is of it, or the slide was
            embedded with other weights, or looked otherwise then, such as with an image: that
            would be taken for what training did.

    Examples:
        >>> import tempfile
        >>> import spatiagraph as sg
        >>> slide = sg.make_tissue(300, num_genes=30, image=None, seed=0)
        >>> model = sg.models.ContextModel.for_slides([slide], channels=8)
        >>> run = tempfile.mkdtemp()
        >>> _ = sg.fit(model, slide, max_steps=1, out=run, progress=False, logger=False)
        >>> _ = sg.embed(model, slide, progress=False)
        >>> embed_before_training(slide, run, ["X_context_niche"])["X_context_niche"].shape
        (300, 8)
    """
    start = load_start(run)
    own = embedding_key(start.name)
    if not any(slot == own or slot.startswith(f"{own}_") for slot in slots):
        raise ValueError(
            f"Expected embeddings of the model of {os.fspath(run)!r}, in obsm[{own!r}] and others "
            f"that begin with it, got {', '.join(slots) or 'none'}: embed the slide with that run"
        )
    record = embedding_record(slide.adata)
    if our_notes(slide.adata).get("name") == start.name:
        _check_weights(record, Path(run))
    _check_content(record, slide)
    data = start.prepare(slide, device=as_device("auto"))
    found = embed_data(start, data, progress=progress)
    by_slot = {embedding_key(start.name, level): z for level, z in found.items()}
    return {slot: by_slot[slot] for slot in slots if slot in by_slot}


def _check_weights(record: Mapping[str, object], run: Path) -> None:
    """Refuse embeddings of other weights than those that the run ended with."""
    noted = record.get("weights_hash")
    trained = weights_hash(SlideModel.from_pretrained(run / MODEL))
    if noted is not None and noted != trained:
        raise ValueError(
            f"Expected a slide embedded with the model of {str(run)!r} ({trained}), got one of "
            f"{noted}: embed it again with that run"
        )


def _check_content(record: Mapping[str, object], slide: Slide) -> None:
    """Refuse a slide that has changed since it was embedded, or lost its image."""
    described = record.get("slides")
    noted = [*described.values()] if isinstance(described, Mapping) else []
    known = [one["content_hash"] for one in noted if isinstance(one, Mapping)]
    if known and content_hash(slide) not in known:
        raise ValueError(
            f"Expected slide {slide.slide_id!r} as it was embedded, got other counts, places or "
            "image: give it the same image, or embed it again as it is"
        )
