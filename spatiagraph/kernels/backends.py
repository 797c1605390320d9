"""Which code runs a kernel: plain torch, numba on CPU, Triton on CUDA, or torch_scatter."""

import importlib
import os
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


@dataclass(frozen=True)
class Backend:
    """One way to run the kernels, as ``spatiagraph doctor`` shows it.

    Args:
        name: What :func:`use` calls it.
        available: Whether it can run here.
        used_for: The tensors it is chosen for.
        reason: Why it is not available and what would mend it; empty when it is.
        self_test: Compares it with plain torch on a small graph and returns the largest relative
            difference; raises what goes wrong.
    """

    name: str
    available: bool
    used_for: str
    reason: str
    self_test: Callable[[], float]


def backends() -> list[Backend]:
    """All backends, whether they can run here, and a self-test of each.

    Example:
        >>> [backend.name for backend in backends()]
        ['torch', 'numba', 'triton', 'scatter']
    """
    has_scatter = find_spec("torch_scatter") is not None
    used_for = {
        "torch": "half precision on CPU; the reference",
        "numba": "float32 and float64 on CPU",
        "triton": "CUDA",
        "scatter": "when asked for; "
        + ("torch_scatter" if has_scatter else "PyG's scatter, since torch_scatter is missing"),
    }
    return [
        Backend(name, not _missing(name), used_for[name], _missing(name), _self_test(name))
        for name in _MODULES
    ]


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
    if name not in _MODULES:
        raise ValueError(f"Expected a backend out of {list(_MODULES)}, got {name!r}")
    if reason := _missing(name):
        raise ValueError(f"Expected a backend that can run here, got {name!r}: {reason}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def backend_for(x: Tensor) -> str:
    """Name of the backend that runs on the device and dtype of ``x``.

    Raises:
        ValueError: If the backend asked for by :func:`use` cannot run on ``x``.
    """
    full = x.dtype in (torch.float32, torch.float64)
    name = _forced.get()
    if name is None:
        if x.device.type == "cuda" and not _missing("triton"):
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
    return importlib.import_module(_MODULES[name])


@torch.compiler.assume_constant_result
def _missing(name: str) -> str:
    """Why a backend cannot run here; empty when it can."""
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


def _self_test(name: str) -> Callable[[], float]:
    def largest_difference() -> float:
        from spatiagraph.kernels.attention import neighbor_attention

        device = "cuda" if name == "triton" and torch.cuda.is_available() else "cpu"
        generator = torch.Generator().manual_seed(0)
        q, k, v = torch.randn(3, 64, 2, 16, generator=generator).to(device)
        target = torch.arange(64).repeat_interleave(8)
        source = torch.randint(64, (512,), generator=generator)
        edge_index = torch.stack([source, target]).to(device)
        with use("torch"):
            expected = neighbor_attention(q, k, v, edge_index)
        with use(name):
            got = neighbor_attention(q, k, v, edge_index)
        return ((got - expected).abs().max() / expected.abs().max()).item()

    return largest_difference
