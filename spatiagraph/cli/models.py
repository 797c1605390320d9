"""Models on the command line: by name, with the options that each of them has."""

import importlib
import inspect
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from spatiagraph.models.base import SlideModel
from spatiagraph.models.catalog import known_models

# option of a model → how it is typed, where that is not its own name
FLAGS = {"num_neighbors": "--neighbors", "labels": "--classify", "num_genes": "--genes"}


def import_modules(names: Sequence[str] | None) -> None:
    """Import modules that define models.

    Args:
        names: Their names.

    Raises:
        ValueError: If there is no such module.
    """
    for name in names or ():
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as err:
            raise ValueError(
                f"Expected a Python module {name!r} for --import: {err}. Is it on PYTHONPATH?"
            ) from err


def options_for(family: type[SlideModel], **given: Any) -> dict[str, Any]:
    """Options that were given, if the model has them all.

    Args:
        family: The model.
        **given: Value of each option; ``None`` where it was not given.

    Raises:
        ValueError: If one is of another model, or no value of this one, named as it is typed.
    """
    own = _options(family)
    chosen = {name: value for name, value in given.items() if value is not None}
    wrong = [name for name in chosen if name not in own and name not in _COMMON]
    if wrong:
        flags = ", ".join(FLAGS.get(name, f"--{name.replace('_', '-')}") for name in wrong)
        others = sorted(n for n, f in known_models().items() if set(wrong) <= {*_options(f)})
        whose = f" of --model {others[0]}" if others else ""
        raise ValueError(f"Expected options of --model {family.name}, got {flags}{whose}")
    for name, value in chosen.items():
        choices = get_args(own[name].annotation) if name in own else ()
        if name in own and get_origin(own[name].annotation) is Literal and value not in choices:
            raise ValueError(
                f"Expected --{name} {' or '.join(choices)} of --model {family.name}, got {value}"
            )
    return {name: value for name, value in chosen.items() if name in own}


_COMMON = {"num_genes", "seed"}  # have a value even where they were not typed


def _options(family: type[SlideModel]) -> dict[str, inspect.Parameter]:
    """Options that a model has by name."""
    parameters = inspect.signature(family.from_options).parameters.values()
    return {p.name: p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
