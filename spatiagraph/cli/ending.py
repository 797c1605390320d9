"""Endings of a command that does not end well: a signal, or a mistake of ours."""

import os
import platform
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import spatiagraph

UNEXPECTED = 70  # what sysexits.h calls a mistake of the program
_BASE = 128  # what shells add to the number of a signal
_STOPS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(Exception):
    """The signal that ended a command, after everything half-written was cleared away.

    Attributes:
        exit_code: What a shell gives for it.
    """

    def __init__(self, number: int):
        super().__init__("interrupted" if number == signal.SIGINT else "terminated")
        self.exit_code = _BASE + number


@contextmanager
def stopped_cleanly() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end a command as Ctrl-C does: what it began is undone.

    Signals that whoever started the command ignores, such as ``nohup``, stay ignored.

    Raises:
        Stopped: A signal came.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        for each in installed:
            signal.signal(each, signal.SIG_IGN)  # once is enough: do not stop the clearing away
        received.append(number)
        raise KeyboardInterrupt

    installed: list[int] = []
    if threading.current_thread() is threading.main_thread():
        installed += [n for n in _STOPS if signal.getsignal(n) is signal.SIG_DFL]
    for number in installed:
        signal.signal(number, stop)
    try:
        yield
    except KeyboardInterrupt as err:
        raise Stopped(received[0] if received else signal.SIGINT) from err
    finally:
        for number in installed:
            signal.signal(number, signal.SIG_DFL)


def report_unexpected(err: Exception) -> str:
    """Keep the traceback of a mistake of ours in a new file, and say in one line where it is.

    Args:
        err: What no command expected.
    """
    what = f"{type(err).__name__}: {' '.join(str(err).split())[:200]}".removesuffix(": ")
    text = (
        f"spatiagraph {spatiagraph.__version__}, Python {sys.version.split()[0]}, "
        f"{platform.platform()}\n{' '.join(sys.argv)}\n\n{''.join(traceback.format_exception(err))}"
    )
    said = f"{what}. This is a mistake of spatiagraph, please report it with "
    try:
        handle, name = tempfile.mkstemp(prefix="spatiagraph-", suffix=".log", text=True)
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:  # no place for it either
        return f"{said}the traceback that --debug shows"
    return f"{said}{name}"


def is_shortage(err: Exception) -> bool:
    """Check that torch ran out of memory, which it says by a RuntimeError."""
    return type(err).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(err)


def shortage(err: Exception) -> str:
    """Message of an error that :func:`is_shortage`, with the memory requested.

    Examples:
        >>> shortage(RuntimeError("can't allocate memory: you tried to allocate 96000000000 bytes"))
        'not enough memory: Expected 96 GB more at once. A smaller model, or fewer cells at a time, takes less'
    """  # noqa: E501
    found = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)", str(err))
    asked = found[1] if found else "more than there is"
    if asked.endswith(" bytes"):
        asked = f"{int(asked.split()[0]) / 1e9:.3g} GB"
    return (
        f"not enough memory: Expected {asked} more at once. A smaller model, or fewer cells at a "
        "time, takes less"
    )
