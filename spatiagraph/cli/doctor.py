"""``spatiagraph doctor``."""

import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import typer

_CORE = (
    "torch",
    "torch-geometric",
    "lightning",
    "timm",
    "diffusers",
    "POT",
    "anndata",
    "numba",
    "zarr",
)
_EXTRAS = {
    "io": (("spatialdata", "spatialdata_io"), "SpatialData stores and the other vendors' folders"),
    "cluster": (("igraph", "leidenalg"), "Leiden clusters as niches"),
    "tensorboard": (("tensorboard",), "training curves in TensorBoard"),
}


def doctor() -> None:
    """What is installed and accelerated here, what is missing, and the line that installs it."""
    import torch

    import spatiagraph
    from spatiagraph.cli.console import say
    from spatiagraph.kernels import backends

    say(f"spatiagraph {spatiagraph.__version__}, Python {sys.version.split()[0]}")
    say(f"{platform.platform()}, {torch.get_num_threads()} threads")
    for name in _CORE:
        say(f"  {name:18}{_version(name)}")
    faiss = "faiss-gpu" if _version("faiss-gpu") != "missing" else "faiss-cpu"
    say(f"  {faiss:18}{_version(faiss)}")
    say("\naccelerators")
    for number in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(number).total_memory / 2**30
        say(f"  CUDA {number}            {torch.cuda.get_device_name(number)}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        say("  MPS               Apple GPU")
    if not torch.cuda.is_available() and not torch.backends.mps.is_available():
        say("  none              everything runs on the CPU")
    say("\nkernel backends")
    failed = []
    for backend in backends():
        if not backend.available:
            say(f"  {backend.name:18}not here: {backend.reason}")
            continue
        start = time.perf_counter()
        difference = backend.self_test()
        seconds = time.perf_counter() - start
        good = difference < 1e-4
        if not good:
            failed.append(backend.name)
        say(
            f"  {backend.name:18}{'ok' if good else 'WRONG'}, for {backend.used_for} "
            f"(differs by {difference:.0e} from plain torch, {seconds:.1f} s)"
        )
    say("\nextras")
    for extra, (modules, purpose) in _EXTRAS.items():
        there = all(find_spec(module) for module in modules)
        state = "ok" if there else f"missing: pip install 'spatiagraph[{extra}]'"
        say(f"  {extra:18}{state} ({purpose})")
    scatter = "ok" if find_spec("torch_scatter") else "missing; not needed, results are the same"
    say(f"  {'torch-scatter':18}{scatter}")
    if failed:
        typer.echo(f"error: the self-test of {', '.join(failed)} failed", err=True)
        raise typer.Exit(1)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
