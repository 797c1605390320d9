"""``fit_generator``: train a generator of images on pairs."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from spatiagraph.data.loader import PairLoader
from spatiagraph.data.slide import Slide
from spatiagraph.models.generator import ImageGenerator
from spatiagraph.models.generator.inputs import check_channels
from spatiagraph.tasks.base import Task
from spatiagraph.tasks.image_flow import ImageFlow
from spatiagraph.training.record import (
    content_hash,
    model_record,
    task_record,
    tensors_hash,
    weights_hash,
)
from spatiagraph.training.trainer import FitResult, train


def fit_generator(
    generator: ImageGenerator,
    slides: Sequence[Slide],
    pairs: pd.DataFrame,
    *,
    profile: nn.Module | None = None,
    task: Task | None = None,
    max_epochs: int = 100,
    lr: float = 1e-3,
    batch_size: int = 64,
    average: float | None = 0.999,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **trainer: Any,
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
        max_epochs: Passes over the pairs.
        lr: Peak learning rate.
        batch_size: Pairs of a mini-batch.
        average: Decay of a moving average of the weights, which the generator ends with.
        seed: Seed of order, times, dropout and flips.
        out: Folder of the run, which a repeated call resumes; nothing is written without it.
        progress: Show a progress bar.
        **trainer: More arguments of :func:`~spatiagraph.training.train`.

    Raises:
        ValueError: Slides, pairs, generator and task do not fit together, or the folder holds a run
            on other pairs, embeddings or signatures.
    """
    if task is not None and (profile is not None or task.model is not generator):
        raise ValueError(
            "Expected a 'task' of this generator that has its own profile, got "
            + ("a task of another one" if profile is None else "'profile' beside the task")
        )
    check_channels(generator.image_channels, slides)
    batches = PairLoader(
        slides,
        pairs,
        window_um=generator.window_um,
        size_px=generator.size_px,
        transitions=[transition.tag for transition in generator.transitions],
        known=lambda slide, rows: generator.known(slide, rows)._asdict(),
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    if task is None:
        task = ImageFlow(generator, profile, mean_confidence=float(batches.confidence.mean()))
    looks = task.profile if isinstance(task, ImageFlow) else None
    return train(
        task,
        batches,
        record={
            **model_record(generator),
            "task": task_record(task),
            "slides": {slide.slide_id: content_hash(slide) for slide in slides},
            "pairs": {"number": len(pairs), "hash": _pairs_hash(batches)},
            "conditions": tensors_hash(dict(generator.named_buffers())),
            "profile": None if looks is None else weights_hash(looks),
            "max_epochs": max_epochs,
            "lr": lr,
            "batch_size": batch_size,
            "average": average,
            "precision": str(trainer.get("precision", "32-true")),
            "seed": seed,
        },
        max_epochs=max_epochs,
        lr=lr,
        average=average,
        seed=seed,
        out=out,
        progress=progress,
        **trainer,
    )


def _pairs_hash(batches: PairLoader) -> str:
    """Short hash of what is paired, and of what is known of it."""
    rows = torch.from_numpy(np.stack([batches.slide, batches.control, batches.target]))
    named = {} if batches.transition is None else {"transition": batches.transition}
    tensors = {"rows": rows, "confidence": batches.confidence, **named}
    return tensors_hash({**tensors, **{f"known.{k}": v for k, v in batches.known.items()}})
