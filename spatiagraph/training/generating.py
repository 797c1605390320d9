"""``fit_generator``: train a generator of images on pairs."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from spatiagraph.data.content import content_hash
from spatiagraph.data.loader import PairLoader
from spatiagraph.data.slide import Slide
from spatiagraph.models.generator import ImageGenerator
from spatiagraph.models.generator.inputs import check_channels
from spatiagraph.nn.weights import tensors_hash, weights_hash
from spatiagraph.tasks.base import Task
from spatiagraph.tasks.image_flow import ImageFlow
from spatiagraph.training.record import model_record, task_record, watched_record
from spatiagraph.training.run import Run, run_of
from spatiagraph.training.trainer import FitResult, check_patience, train

_VALIDATED = 256  # pairs of a validation set


def fit_generator(
    generator: ImageGenerator,
    slides: Slide | Sequence[Slide],
    pairs: pd.DataFrame,
    *,
    profile: nn.Module | None = None,
    task: Task | None = None,
    batch_size: int = 64,
    validation: pd.DataFrame | None = None,
    run: Run | None = None,
    **options: Any,
) -> FitResult:
    """Train a generator on pairs of cells; it is changed in place.

    Args:
        generator: The generator.
        slides: Cohort with images and embeddings.
        pairs: Result of :func:`~spatiagraph.pairing.pair_states`, or of
            :func:`~spatiagraph.data.pairs_of_cells` for one without transitions.
        profile: Network of morphology to align images by, see
            :class:`~spatiagraph.tasks.ImageFlow`.
        task: What to learn of the batches of a :class:`~spatiagraph.data.PairLoader`, if not an
            :class:`~spatiagraph.tasks.ImageFlow` with its defaults.
        batch_size: Pairs of a mini-batch.
        validation: Pairs that are not trained on, of which 256 are drawn. The weights are kept
            whose images of them are nearest to those of their partners, those before the first
            step among them.
        run: How to train, see :class:`~spatiagraph.training.Run`; 100 epochs with a moving average
            of decay 0.999 when not given.
        **options: Fields of ``run`` by name.

    Raises:
        ValueError: Slides, pairs, generator and task do not fit together, or the folder holds a run
            on other pairs, embeddings or signatures.
    """
    run = run_of(run, options, default=Run(max_epochs=100, average=0.999), taken_by=fit_generator)
    check_patience(run, validation is not None)
    slides = [slides] if isinstance(slides, Slide) else slides
    if task is not None and (profile is not None or task.model is not generator):
        raise ValueError(
            "Expected a 'task' of this generator that has its own profile, got "
            + ("a task of another one" if profile is None else "'profile' beside the task")
        )
    check_channels(generator.image_channels, slides)
    load = partial(
        PairLoader,
        slides,
        crop=generator.crop,
        transitions=[transition.tag for transition in generator.transitions],
        known=generator.known,
        seed=run.seed,
        num_workers=run.num_workers,
        progress=run.progress,
    )
    batches = load(pairs, batch_size=batch_size)
    held_out = None
    if validation is not None:  # in one batch: distances are of many images
        some = validation.sample(min(len(validation), _VALIDATED), random_state=run.seed)
        held_out = load(some.sort_index(), batch_size=_VALIDATED)
    if task is None:
        task = ImageFlow(generator, profile, mean_confidence=float(batches.confidence.mean()))
    looks = task.profile if isinstance(task, ImageFlow) else None
    return train(
        task,
        batches,
        validation=held_out,
        record={
            **model_record(generator),
            "task": task_record(task),
            "watched": watched_record(task),
            "slides": {slide.slide_id: content_hash(slide) for slide in slides},
            "pairs": {"number": len(pairs), "hash": _pairs_hash(batches)},
            **({} if held_out is None else {"validation": _pairs_hash(held_out)}),
            "conditions": tensors_hash(dict(generator.named_buffers())),
            "profile": None if looks is None else weights_hash(looks),
            "batch_size": batch_size,
            **run.record,
        },
        run=run,
    )


def _pairs_hash(batches: PairLoader) -> str:
    """Short hash of what is paired, and of what is known of it."""
    rows = torch.from_numpy(np.stack([batches.slide, batches.control, batches.target]))
    known = {f"known.{k}": v for k, v in batches.condition._asdict().items() if v is not None}
    return tensors_hash({"rows": rows, "confidence": batches.confidence, **known})
