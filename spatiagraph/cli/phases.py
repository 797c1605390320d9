"""Phases of a command that takes a while: numbered, and what each took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from spatiagraph.cli.console import say


class Phases:
    """Numbered phases of a command, each announced before its progress bar.

    Args:
        num: Number of phases.
    """

    def __init__(self, num: int):
        self._num, self._at = num, 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Announce a phase, and print the time it took once it is done.

        Args:
            name: What is done.
        """
        self._at += 1
        say(f"[{self._at}/{self._num}] {name}")
        start = time.perf_counter()
        yield
        say(f"      {time.perf_counter() - start:.0f} s")
