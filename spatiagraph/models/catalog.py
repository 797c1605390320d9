"""Models by name: the one mapping behind the command line, loading and the docs."""

import importlib
import pkgutil

import spatiagraph.models
from spatiagraph.models.base import SlideModel


def model_class(name: str) -> type[SlideModel]:
    """Class of a model by its short name, such as ``"context"``.

    Every module of :mod:`spatiagraph.models` is looked at, and every class of one's own that has
    been defined.

    Args:
        name: Its ``name``.

    Raises:
        ValueError: If there is none, with those there are.
    """
    known = known_models()
    plain = name.lower().replace("-", "").replace("_", "")  # "st-align" is "stalign"
    if name not in known and plain not in known:
        raise ValueError(f"Expected a model among {', '.join(sorted(known))}, got {name!r}")
    return known[name if name in known else plain]


def known_models() -> dict[str, type[SlideModel]]:
    """Name → class of all models, those of a user included."""
    for module in pkgutil.iter_modules(spatiagraph.models.__path__):
        importlib.import_module(f"spatiagraph.models.{module.name}")
    return dict(SlideModel.known)
