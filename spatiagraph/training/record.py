"""Record of a run, kept beside weights and embeddings."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import spatiagraph
from spatiagraph._config import to_config
from spatiagraph.data.cohort import CohortPart
from spatiagraph.data.cohort.layout import SlideEntry
from spatiagraph.data.content import content_hash
from spatiagraph.data.slide import Slide
from spatiagraph.models.base import SlideModel
from spatiagraph.nn.config import Configurable
from spatiagraph.nn.weights import HASH_LENGTH
from spatiagraph.tasks.base import Task, Watched
from spatiagraph.tasks.objective import ObjectiveTask

_DESCRIBED = ("content_hash", "num_cells", "num_genes", "panel_coverage")


def run_record(
    model: SlideModel, slides: Sequence[Slide] | CohortPart, **arguments: Any
) -> dict[str, Any]:
    """Version, model, arguments, and coverage and content hash of each slide, as plain values."""
    if isinstance(slides, CohortPart):
        described = {entry.slide_id: _stored(entry) for entry in slides.entries}
    else:
        described = {slide.slide_id: _described(model, slide) for slide in slides}
    return {
        **model_record(model),
        "num_genes": len(model.panel),
        "slides": described,
        **arguments,
    }


def _described(model: SlideModel, slide: Slide) -> dict[str, Any]:
    return {
        "content_hash": content_hash(slide),
        "num_cells": slide.num_cells,
        "num_genes": slide.num_genes,
        "panel_coverage": model.panel.align(slide).coverage,
    }


def _stored(entry: SlideEntry) -> dict[str, Any]:
    """The same of a slide of a cohort, which knew it when it was written."""
    return {key: getattr(entry, key) for key in _DESCRIBED}


def model_record(model: Configurable) -> dict[str, Any]:
    """Version, class and a hash of the constructor arguments of a model, as plain values."""
    return {
        "version": spatiagraph.__version__,
        "model": type(model).__name__,
        "config_hash": _short_hash(json.dumps(to_config(model), sort_keys=True).encode()),
    }


def task_record(task: Task) -> dict[str, Any]:
    """Class of a task and its settings, as plain values."""
    plain = (bool, int, float, str)
    settings = {
        name: asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in vars(task).items()
        if not name.startswith("_") and (isinstance(value, plain) or is_dataclass(value))
    }
    settings.pop("training", None)
    if isinstance(task, ObjectiveTask):
        settings["objectives"] = dict(task.weights)
    return {"class": type(task).__name__, **settings}


def watched_record(task: Task) -> dict[str, Any] | None:
    """Name and direction of the score by which weights are kept; ``None`` for the loss."""
    return None if task.watched == Watched() else task.watched._asdict()


def _short_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:HASH_LENGTH]
