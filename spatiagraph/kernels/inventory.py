"""Inventory of the backends, for diagnosis: what can run here, and whether it computes the same."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from spatiagraph.kernels.attention import neighbor_attention
from spatiagraph.kernels.backends import MODULES, missing, use


@dataclass(frozen=True)
class Backend:
    """Implementation of the kernels, as ``spatiagraph doctor`` shows it.

    Args:
        name: Its name for :func:`use`.
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
    """List all backends, whether they can run here, and a self-test of each.

    Example:
        >>> [backend.name for backend in backends()]
        ['torch', 'numba', 'triton', 'scatter']
    """
    has_scatter = find_spec("torch_scatter") is not None
    used_for = {
        "torch": "half precision on CPU; the reference",
        "numba": "float32 and float64 on CPU",
        "triton": "CUDA",
        "scatter": "on request; "
        + ("torch_scatter" if has_scatter else "PyG's scatter, since torch_scatter is missing"),
    }
    return [
        Backend(name, not missing(name), used_for[name], missing(name), _self_test(name))
        for name in MODULES
    ]


def _self_test(name: str) -> Callable[[], float]:
    def largest_difference() -> float:
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
