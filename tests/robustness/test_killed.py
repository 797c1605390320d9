"""A command that is killed at any moment loses nothing: run again it ends as if it had not been.

What is written lies on another file system than the temporary folder, where no rename reaches.
"""

import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

MOMENTS = int(os.environ.get("SPATIAGRAPH_KILLS", "50"))  # of each command
_MEMORY = Path("/dev/shm")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not _MEMORY.is_dir() or _MEMORY.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev,
        reason="needs a file system beside that of the temporary folder",
    ),
]


@pytest.fixture
def elsewhere():
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        yield Path(folder)


def until(out, commands, process):
    """Seconds until a command begins to write, or ends."""
    begun = time.monotonic()
    while not (out.exists() or commands.is_over(process)):
        time.sleep(0.001)
    return time.monotonic() - begun


@pytest.mark.parametrize("name", ["fit", "embed", "search", "morphology", "generate", "perturb"])
def test_a_command_killed_at_any_moment_ends_as_one_that_was_not(
    commands, material, lines, contents_of, elsewhere, name
):
    whole = elsewhere / "whole"
    working = until(whole, commands, commands.start(*lines(material, whole)[name]))
    begun = time.monotonic()
    done = commands.wait()
    assert done.code == 0, done.said
    writing = time.monotonic() - begun
    expected = contents_of(whole)
    random = np.random.default_rng(0)
    killed = remained = 0
    for moment in range(MOMENTS):
        out = elsewhere / f"killed{moment}"
        line = lines(material, out)[name]
        process = commands.start(*line)
        if moment % 5:
            until(out, commands, process)
            time.sleep(writing * random.uniform(0, 1))
        else:
            time.sleep(working * random.uniform(0, 1))
        os.kill(process, signal.SIGKILL)
        ended_by_us = commands.wait().code == -signal.SIGKILL
        killed += ended_by_us
        remained += ended_by_us and out.exists()
        again = commands(*line)
        assert again.code == 0, again.said
        assert contents_of(out) == expected, f"moment {moment}"
        assert not [path for path in out.rglob(".*") if ".new" in path.name]
    print(f"{name}: {killed} of {MOMENTS} killed, {remained} of them had begun to write")
    assert killed > 0
