"""The closed set of classes that may stand in a saved file.

A class is registered where it is defined (:func:`savable`); a file that names any other is refused.
One that has moved since is listed in ``MOVED``.
"""

import importlib
from typing import TypeVar

MODULES = frozenset(
    f"spatiagraph.{name}"
    for name in (
        "data.convert.recipe", "data.labels", "data.panel", "heads.expression",
        "heads.image.generator", "heads.label", "heads.token_expression", "models.context",
        "models.context_encoder", "models.spatia.model", "nn.cell", "nn.condition",
        "nn.cross_attention", "nn.encoding", "nn.fusion", "nn.gene_tokens", "nn.genes",
        "nn.genomic_position", "nn.image", "nn.image_statistics", "nn.masked_image",
        "nn.morphology", "nn.pool", "nn.token_cell", "nn.token_fusion", "nn.token_transformer",
        "nn.top_down", "nn.transformer", "nn.unet",
    )
)  # fmt: skip
"""Modules that define savable classes: no other is imported because a file names it."""
MOVED: dict[str, str] = {}
"""Full name under which a class was saved → its name today."""
_CLASSES: dict[str, type] = {}

C = TypeVar("C", bound=type)


def savable(cls: C) -> C:
    """Register a class that may stand in a saved configuration.

    Its constructor must do no more than build: no file, no network, nothing that lasts. Classes
    outside this package are not registered; who reads a file hands them over.
    """
    if cls.__module__.partition(".")[0] == "spatiagraph":
        _CLASSES[full_name(cls)] = cls
    return cls


def savable_classes() -> dict[str, type]:
    """Every class that may stand in a saved configuration, by full name."""
    for module in sorted(MODULES):
        importlib.import_module(module)
    return dict(_CLASSES)


def full_name(cls: type) -> str:
    """Module and name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def is_savable(cls: type) -> bool:
    """Whether a class may stand in a saved configuration, and is not a user's own."""
    return _CLASSES.get(full_name(cls)) is cls


def find_class(name: str) -> type | None:
    """The savable class of a full name of today or of before, or ``None``."""
    today = MOVED.get(name, name)
    module = today.rpartition(".")[0]
    if module not in MODULES:
        return None
    importlib.import_module(module)
    return _CLASSES.get(today)


def nearest_class(name: str) -> str | None:
    """A savable class of that name in another module, which was most likely meant."""
    last = name.rpartition(".")[2]
    return next((known for known in _CLASSES if known.rpartition(".")[2] == last), None)
