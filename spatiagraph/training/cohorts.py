"""Cohorts at the door of ``fit`` and ``embed``: their tiles are those that the model reads."""

from spatiagraph._config import to_config
from spatiagraph.data.cohort import Cohort, CohortPart
from spatiagraph.models.base import SlideModel


def part_for(model: SlideModel, cohort: Cohort | CohortPart) -> CohortPart:
    """Slides of a cohort, if they were prepared as a model has them.

    Args:
        model: The model.
        cohort: A cohort, or a part of one.

    Raises:
        ValueError: They were prepared by another recipe, hold less context than the model looks at,
            or the model needs more than a recipe makes.
    """
    part = cohort.part() if isinstance(cohort, Cohort) else cohort
    name = type(model).__name__
    if not model.prepares_by_recipe:
        raise ValueError(
            f"Expected a model that reads what its recipe makes, {name} makes more of a slide "
            "first, which a cohort does not hold: pass slides, such as those of list(cohort)"
        )
    ours, theirs = model.recipe.config_args(), part.recipe.config_args()
    differing = [key for key in ours if to_config(ours[key]) != to_config(theirs[key])]
    if differing:
        raise ValueError(
            f"Expected a cohort of the recipe of the model, {str(part.path)!r} was made with "
            f"another {' and '.join(differing)}: create one with model.recipe"
        )
    part.check_hops(model.num_hops)
    return part


def check_whole(cohort: object, option: str) -> None:
    """Refuse an option that needs whole slides in memory.

    Args:
        cohort: Slides, or a cohort.
        option: What was asked for, as Python writes it.

    Raises:
        ValueError: It is a cohort.
    """
    if isinstance(cohort, Cohort | CohortPart):
        raise ValueError(
            f"Expected slides in memory with {option}, got a cohort: leave it out, or pass slides, "
            "such as those of list(cohort)"
        )
