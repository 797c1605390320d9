"""Sub-packages and names that load when first used, so that ``import spatiagraph`` is quick."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def attach(
    package: str, modules: tuple[str, ...] = (), names: Mapping[str, str] | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package whose contents load on first use (PEP 562).

    Args:
        package: The package's ``__name__``.
        modules: Sub-modules reachable as attributes.
        names: Public name → sub-module that defines it, relative to the package.
    """
    names = names or {}

    def __getattr__(name: str) -> Any:
        if name in names:
            return getattr(importlib.import_module(f"{package}.{names[name]}"), name)
        if name in modules:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*modules, *names})

    return __getattr__, __dir__
