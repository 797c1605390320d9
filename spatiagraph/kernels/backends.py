"""Which code runs a kernel: plain torch, numba on CPU, Triton on CUDA, or torch_scatter."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

_MODULES = {
    "torch": "spatiagraph.kernels._torch",
}
_forced: ContextVar[str | None] = ContextVar("spatiagraph_kernel_backend", default=None)


@contextmanager
def use(name: str) -> Iterator[None]:
    """Run the kernels inside the block on one backend, whatever the device would suggest.

    Args:
        name: One of the names of :func:`backends`.

    Raises:
        ValueError: If there is no such backend, or it cannot run here.

    Example:
        >>> with use("torch"):
        ...     out = neighbor_attention(q, k, v, edge_index)
    """
    if name not in _MODULES:
        raise ValueError(f"Expected a backend out of {sorted(_MODULES)}, got {name!r}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def backend_for(x: Tensor) -> str:
    """Name of the backend that runs on the device and dtype of ``x``."""
    return _forced.get() or "torch"


def implementation(name: str) -> ModuleType:
    """The module of a backend, imported on first use."""
    return importlib.import_module(_MODULES[name])
