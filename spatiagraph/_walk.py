"""HDF5 layout, walked in another process first: a damaged one can end the process that reads it.

HDF5 is C code that believes much of what a file says of its layout, and one changed byte in an
attribute can lead it out of its memory. So a process that holds nothing opens every object and
attribute before this one does.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from spatiagraph._heaps import check_heaps


class Walker:
    """A process that walks through one HDF5 file after the other, begun when first needed.

    Args:
        seconds: Time for a walk, which takes milliseconds, and for the process to begin.
    """

    def __init__(self, seconds: float = 120.0) -> None:
        self.seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self._end)
        if hasattr(os, "register_at_fork"):  # two must not talk to one process
            os.register_at_fork(after_in_child=self._begin_anew)

    def check(self, path: Path) -> None:
        """Refuse a file that ends or halts the process that walks through it.

        What HDF5 notices by itself is left to the reader, which knows what it looks for.

        Args:
            path: The file.

        Raises:
            ValueError: The walk did not come to its end.
            OSError: No process can be begun.
        """
        with self._lock:
            walked = False
            try:
                walked = self._walk(path)
            finally:  # also on Ctrl-C: the answer to come would be taken for that of another file
                if not walked:
                    self._end()
        if not walked:
            raise ValueError(
                f"Expected a readable HDF5 file, got {path.name}, whose layout leads nowhere. "
                "The file is damaged or incomplete: copy it again"
            )

    def _walk(self, path: Path) -> bool:
        if self._process is not None and self._process.poll() is not None:
            self._end()  # it was killed by somebody
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", Path(__file__).with_name("_walked.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C in a terminal is not for it
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
            )
            if not self._answers(self._process):
                self._end()
                raise OSError(f"Expected {sys.executable} to run h5py, and it ended at once")
        return self._answers(self._process, os.path.abspath(path))

    def _answers(self, process: "subprocess.Popen[str]", path: str | None = None) -> bool:
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        overdue = threading.Timer(self.seconds, process.kill)
        overdue.start()
        try:
            if path is not None:
                print(json.dumps(path), file=process.stdin, flush=True)
            return bool(process.stdout.readline())
        except BrokenPipeError:
            return False
        finally:
            overdue.cancel()

    def _begin_anew(self) -> None:
        self._lock = threading.Lock()
        self._process = None

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            with suppress(BrokenPipeError):
                self._process.communicate()
        self._process = None


_WALKER = Walker()


def check_hdf5(path: Path) -> None:
    """Refuse an HDF5 file that would end or halt the process that reads it.

    Args:
        path: The file.

    Raises:
        ValueError: It is such a file.
    """
    check_heaps(path)
    _WALKER.check(path)
