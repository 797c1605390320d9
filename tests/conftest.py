"""Fixtures shared by all tests, and what must be set before torch and numba are loaded."""

import gc
import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "spatiagraph"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spatiagraph" / "numba"

# threads that wait for each other sleep: on a busy machine they else burn what others need
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker has a core of its own, and no more
    os.environ["OMP_NUM_THREADS"] = "1"


def _kernel_hash() -> str:
    """Hash of everything that numba compiles, and of what goes into it."""
    texts = {path: path.read_bytes() for path in sorted(PACKAGE.rglob("*.py"))}
    compiled = [t for p, t in texts.items() if b"numba" in t or p.parent.name == "kernels"]
    return hashlib.sha256(b"\0".join(compiled)).hexdigest()[:16]


# numba looks at the file of a kernel alone, not at those that it takes functions from
os.environ.setdefault("NUMBA_CACHE_DIR", str(CACHE / _kernel_hash()))


gc.set_threshold(200_000)  # imports make a million of objects, and leave none


def pytest_collection_finish() -> None:
    """Keep what was imported out of the garbage collector's rounds: it stays to the end."""
    gc.freeze()
    gc.set_threshold(10_000)  # tests make many objects, and few cycles


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real slides; tests that need it skip where it is not there."""
    root = os.environ.get("SPATIAGRAPH_DATA")
    if not root:
        pytest.skip("real data: set SPATIAGRAPH_DATA to the folder of the slides")
    path = Path(root)
    if not path.is_dir():
        raise ValueError(f"Expected SPATIAGRAPH_DATA to be a folder, got {root!r}")
    return path


@pytest.fixture(scope="session", autouse=True)
def ctrl_c() -> None:
    """Ctrl-C interrupts also where a shell started the tests in the background, deaf to it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def without_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it was not installed: it compiles itself in every process, which takes seconds."""
    monkeypatch.setitem(sys.modules, "umap", None)


@pytest.fixture
def few_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """Domains from 8 clusterings in place of 40, where how good they are is not the matter."""
    from spatiagraph.inference.domains import Consensus

    few = partial(Consensus, num_members=8)
    monkeypatch.setattr("spatiagraph.inference.domains.methods.Consensus", few)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small are slowed down by threads, a lot so on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
