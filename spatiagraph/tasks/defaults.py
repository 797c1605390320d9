"""Which task pre-trains which model."""

from spatiagraph.models.base import SlideModel
from spatiagraph.models.context import ContextModel
from spatiagraph.models.spatia import Spatia
from spatiagraph.tasks.base import Task
from spatiagraph.tasks.masked_genes import MaskedGenes
from spatiagraph.tasks.spatia import SpatiaPretraining


def default_task(model: SlideModel, *, seed: int = 0) -> Task:
    """The pre-training task of a model.

    Args:
        model: The model.
        seed: Seed of what the task itself learns.

    Raises:
        ValueError: If the library has none for it.
    """
    if isinstance(model, Spatia):
        return SpatiaPretraining(model, seed=seed)
    if isinstance(model, ContextModel):
        return MaskedGenes(model)
    raise ValueError(f"Expected a 'task' for a {type(model).__name__}, got None")
