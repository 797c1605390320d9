"""The closed set of classes that may stand in a saved file.

A class is registered where it is defined (:func:`savable`); a file that names any other is refused.
One that has moved since is listed in ``MOVED``.
"""

import functools
import importlib
import pkgutil
import re
from typing import TypeVar

ROOMS = ("data", "flow", "heads", "models", "nn")
"""Sub-packages that define savable classes: no other is imported because a file names it."""
MOVED: dict[str, str] = {
    "spatiagraph.data.convert.recipe.SlideToGraph": "spatiagraph.data.recipe.recipe.Recipe",
    "spatiagraph.heads.image.generator.ImageGenerator": (
        "spatiagraph.models.generator.model.ImageGenerator"
    ),
    "spatiagraph.nn.encoding.PlaceEncoding": "spatiagraph.nn.encoding.PositionEncoding",
    "spatiagraph.nn.morphology.MorphologyProfile": (
        "spatiagraph.nn.morphology_profile.MorphologyProfile"
    ),
}
"""Full name under which a class was saved → its name today."""
_CLASSES: dict[str, type] = {}
_OWN: dict[str, type] = {}
_MODULE = re.compile(rf"spatiagraph\.({'|'.join(ROOMS)})(\.[a-z_][a-z0-9_]*)+", re.ASCII)

C = TypeVar("C", bound=type)


def savable(cls: C) -> C:
    """Register a class that may stand in a saved configuration.

    Its constructor must do no more than build: no file, no network, nothing that lasts. Classes
    outside this package are not registered; who reads a file hands them over.
    """
    if cls.__module__.partition(".")[0] == "spatiagraph":
        _CLASSES[full_name(cls)] = cls
    return cls


def extension(cls: C) -> C:
    """Register a model or rule, of this package or of the program that runs.

    Those of a program are known once it has defined them itself: nothing is imported for a file.
    """
    if cls.__module__.partition(".")[0] != "spatiagraph":
        _OWN[full_name(cls)] = cls
    return savable(cls)


def full_name(cls: type) -> str:
    """Module and name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def is_savable(cls: type) -> bool:
    """Check that a class may stand in a saved configuration, and is not a user's own."""
    return _CLASSES.get(full_name(cls)) is cls


def find_class(name: str) -> type | None:
    """The savable class of a full name of today or of before, or ``None``."""
    if name in _OWN:
        return _OWN[name]
    today = MOVED.get(name, name)
    module = today.rpartition(".")[0]
    if today not in _CLASSES and _MODULE.fullmatch(module) and _exists(module):
        importlib.import_module(module)
    return _CLASSES.get(today)


def _exists(module: str) -> bool:
    """Whether a module of this package is there."""
    package = "spatiagraph"
    for part in module.split(".")[1:]:
        if part not in _parts(package):
            return False
        package = f"{package}.{part}"
    return True


@functools.cache
def _parts(package: str) -> set[str]:
    """Names of the modules of a package of ours, which is imported."""
    found = importlib.import_module(package)
    return {info.name for info in pkgutil.iter_modules(getattr(found, "__path__", []))}


def nearest_class(name: str) -> str | None:
    """A savable class of that name in another module, which was most likely meant."""
    last = name.rpartition(".")[2]
    return next((known for known in _CLASSES if known.rpartition(".")[2] == last), None)
