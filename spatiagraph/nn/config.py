"""Modules that remember how they were built, so that a model can be saved without pickling.

A saved module is a JSON tree ``{"class": "spatiagraph.nn.genes.GeneEncoder", "args": {...}}``.
Reading it back imports only classes of this package, or classes the caller hands over.
"""

import functools
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn


class Configurable(nn.Module):
    """A module whose constructor arguments are kept in ``init_args``.

    Sub-classes write an ordinary ``__init__``; arguments must be plain values (numbers, strings,
    lists, ``None``) or other :class:`Configurable` objects.
    """

    init_args: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        init = cls.__init__
        signature = inspect.signature(init)

        @functools.wraps(init)
        def recording_init(self: Configurable, *args: Any, **kwargs: Any) -> None:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            arguments = dict(list(bound.arguments.items())[1:])
            for name, parameter in signature.parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    arguments.update(arguments.pop(name, {}))
            init(self, *args, **kwargs)
            self.init_args = arguments

        cls.__init__ = recording_init  # type: ignore[assignment, method-assign]

    def config_args(self) -> dict[str, Any]:
        """Arguments that rebuild this module before its weights are loaded."""
        return self.init_args


def to_config(value: Any) -> Any:
    """JSON-ready description of a value, a :class:`Configurable` module, or a container of them.

    Raises:
        ValueError: If a part cannot be described, naming its type.
    """
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, Configurable):
        return {"class": name, "args": {k: to_config(v) for k, v in value.config_args().items()}}
    if hasattr(value, "to_dict"):
        return {"class": name, "dict": value.to_dict()}
    if isinstance(value, Mapping):
        return {str(k): to_config(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_config(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError(
        f"Expected plain values or Configurable modules as constructor arguments, got "
        f"{type(value).__name__}: derive it from spatiagraph.nn.config.Configurable to save it"
    )


def from_config(config: Any, custom: Mapping[str, type] | None = None) -> Any:
    """Build what :func:`to_config` described.

    Args:
        config: The JSON tree.
        custom: Classes outside this package by their full name.

    Raises:
        ValueError: If a class is not part of this package and not in ``custom``.
    """
    if isinstance(config, list):
        return [from_config(item, custom) for item in config]
    if not isinstance(config, dict):
        return config
    if "class" not in config:
        return {key: from_config(item, custom) for key, item in config.items()}
    cls = _resolve(config["class"], custom or {})
    if "dict" in config:
        return cls.from_dict(config["dict"])
    return cls(**{key: from_config(item, custom) for key, item in config["args"].items()})


def _resolve(name: str, custom: Mapping[str, type]) -> Any:
    if name in custom:
        return custom[name]
    module, _, attribute = name.rpartition(".")
    if not module.startswith("spatiagraph."):
        raise ValueError(
            f"Expected a class of spatiagraph in the saved configuration, got {name!r}; "
            f"pass custom={{{name!r}: YourClass}} if you trust it"
        )
    return getattr(importlib.import_module(module), attribute)
