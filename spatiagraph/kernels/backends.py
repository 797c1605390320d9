"""Choice of the code that runs a kernel: torch, numba on CPU, Triton on CUDA, torch_scatter."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

MODULES = {
    "torch": "spatiagraph.kernels._torch",
    "numba": "spatiagraph.kernels._numba",
    "triton": "spatiagraph.kernels._triton",
    "scatter": "spatiagraph.kernels._scatter",
}
_forced: ContextVar[str | None] = ContextVar("spatiagraph_kernel_backend", default=None)


_forked = False  # in a forked worker, whose parent's OpenMP threads must not be used


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


@contextmanager
def use(name: str) -> Iterator[None]:
    """Run the kernels inside the block on one backend, whatever the device would suggest.

    Args:
        name: One of ``"torch"``, ``"numba"``, ``"triton"``, ``"scatter"``.

    Raises:
        ValueError: If there is no such backend, or it cannot run here.

    Example:
        >>> with use("torch"):
        ...     total = segment_sum(torch.ones(3), torch.tensor([0, 2, 3]))
    """
    if name not in MODULES:
        raise ValueError(f"Expected a backend out of {list(MODULES)}, got {name!r}")
    if reason := missing(name):
        raise ValueError(f"Expected a backend that can run here, got {name!r}: {reason}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def backend_for(x: Tensor) -> str:
    """Name of the backend that runs on the device and dtype of ``x``.

    Raises:
        ValueError: If the backend requested by :func:`use` cannot run on ``x``.
    """
    full = x.dtype in (torch.float32, torch.float64)
    name = _forced.get()
    if name is None:
        if x.device.type == "cuda" and not missing("triton"):
            return "triton"
        return "numba" if x.device.type == "cpu" and full and not _forked else "torch"
    if name == "numba" and not (x.device.type == "cpu" and full):
        raise ValueError(
            f"Expected float32 or float64 on CPU for the 'numba' backend, got {x.dtype} on "
            f"{x.device}"
        )
    if name == "triton" and x.device.type != "cuda" and not _is_interpreting():
        raise ValueError(f"Expected a CUDA tensor for the 'triton' backend, got one on {x.device}")
    return name


def implementation(name: str) -> ModuleType:
    """The module of a backend, imported on first use."""
    return importlib.import_module(MODULES[name])


@torch.compiler.assume_constant_result
def missing(name: str) -> str:
    """Reason why a backend cannot run here; empty when it can."""
    if name == "numba" and find_spec("numba") is None:
        return "numba is not installed: pip install numba"
    if name == "triton":
        if find_spec("triton") is None:
            return "triton is not installed: pip install triton"
        if not torch.cuda.is_available() and not _is_interpreting():
            return "no CUDA device (TRITON_INTERPRET=1 runs it slowly on CPU)"
    return ""


def _is_interpreting() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
