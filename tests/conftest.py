"""Fixtures shared by all tests."""

import os
import signal
from pathlib import Path

import pytest


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
