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

MOMENTS = 50
_MEMORY = Path("/dev/shm")

pytestmark = pytest.mark.skipif(
    not _MEMORY.is_dir() or _MEMORY.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev,
    reason="needs a file system beside that of the temporary folder",
)


@pytest.fixture
def elsewhere():
    with tempfile.TemporaryDirectory(dir=_MEMORY) as folder:
        yield Path(folder)


CASES = [
    *(pytest.param(name, 2, id=f"{name}, 2 moments") for name in ("fit", "embed")),
    *(
        pytest.param(name, MOMENTS, id=f"{name}, {MOMENTS} moments", marks=pytest.mark.slow)
        for name in ("fit", "embed", "search", "morphology", "generate")
    ),
]


@pytest.mark.parametrize(("name", "moments"), CASES)
def test_a_command_killed_at_any_moment_ends_as_one_that_was_not(
    commands, material, lines, contents_of, elsewhere, name, moments
):
    begun = time.monotonic()
    whole = elsewhere / "whole"
    done = commands(*lines(material, whole)[name])
    assert done.code == 0, done.said
    seconds = time.monotonic() - begun
    expected = contents_of(whole)
    random = np.random.default_rng(0)
    killed, remained = 0, 0
    for moment in range(moments):
        out = elsewhere / f"killed{moment}"
        line = lines(material, out)[name]
        process = commands.start(*line)
        time.sleep(seconds * random.uniform(0.1, 1.0))
        os.kill(process, signal.SIGKILL)  # not reaped yet, so the id is still its own
        killed += commands.wait().code == -signal.SIGKILL
        remained += out.exists()
        again = commands(*line)
        assert again.code == 0, again.said
        assert contents_of(out) == expected, f"moment {moment}"
        assert not [p for p in out.rglob(".*") if p.name.split(".")[-2:-1] == ["new"]]
    print(
        f"{name}: {killed} of {moments} killed, {remained} with something written; {seconds:.1f} s"
    )
    assert killed > 0
