"""Tasks by the model that they pre-train."""

import importlib
import pkgutil

import spatiagraph.tasks
from spatiagraph.models.base import SlideModel
from spatiagraph.tasks.base import Task


def pretraining(model: SlideModel, *, seed: int = 0, cached_cells: bool = False) -> Task:
    """Task that pre-trains a model, of ours or of one's own: ``class MyTask(Task, pretrains=My)``.

    Args:
        model: The model.
        seed: Seed of what the task itself learns.
        cached_cells: Whether cells are encoded once, and only what comes after them learns.

    Raises:
        ValueError: If there is none.
    """
    for module in pkgutil.iter_modules(spatiagraph.tasks.__path__):
        importlib.import_module(f"spatiagraph.tasks.{module.name}")
    return model.task(seed=seed, cached_cells=cached_cells)
