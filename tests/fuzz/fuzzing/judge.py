"""What became of a case, in one of seven classes."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

_BARE = re.compile(r"Errno|object at 0x|codec can't|Traceback|NoneType|has no attribute|<class '")
"""Words of libraries that tell a person nothing."""


class Outcome(NamedTuple):
    """Class of an outcome, what was done, and what was said.

    Attributes:
        kind: ``"clean"``: refused in one clear line, or read as it was. ``"traceback"``: another
            error than a person can act on. ``"silent"``: damage went in and changed what came
            out. ``"crash"``, ``"hang"``: the process ended, or did not. ``"partial"``: something
            half-written is left. ``"vague"``: a line that names neither the part nor a cure.
        damage: What was done to which part.
        said: The message, the signal, or what was left.
    """

    kind: str
    damage: str
    said: str = ""


def of_error(damage, error, left):
    """Class of an error.

    Args:
        damage: What was done.
        error: What was raised.
        left: Names of files beyond those that were there.
    """
    done = getattr(error, "done", None)
    if done is None:
        expected = isinstance(error, ValueError | OSError | ImportError | MemoryError)
        kind, said = ("" if expected else "traceback"), f"{type(error).__name__}: {error}"
        message = str(error)
    else:
        kind, message = _of_command(done)
        said = f"exit {done.exit_code}: {message}"
    if kind:
        return Outcome(kind, damage.what, said)
    if left:
        return Outcome("partial", damage.what, f"{', '.join(left)} after {said}")
    return Outcome("clean" if _clear(message, damage.names) else "vague", damage.what, said)


def _of_command(done):
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return "traceback", f"{type(done.exception).__name__}: {done.exception}"
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    if done.exit_code == 2:  # typer's own, in a frame
        return "", "Expected " + " ".join(re.sub(r"[│╭╮╰╯─]+", " ", done.stderr).split())
    if done.exit_code == 70 or len(lines) != 1:
        return "traceback", done.stderr[-500:]
    return "", lines[0].removeprefix("error: ")


def _clear(message, names):
    if "\n" in message.strip() or len(message) < 20 or _BARE.search(message):
        return False
    stems = {part for name in names for part in (name, Path(name).stem) if len(part) > 1}
    return any(part in message for part in stems) or "Expected" in message


def of_result(damage, result, before):
    """Class of what a door gave.

    Args:
        damage: What was done.
        result: What came out.
        before: What comes out of the whole file.
    """
    for part in result:
        if isinstance(part, np.ndarray | float) and not np.isfinite(part).all():
            return Outcome("silent", damage.what, "not finite")
    if damage.certain and not _same(result, before):
        return Outcome("silent", damage.what, "other results")
    return Outcome("clean", damage.what, "accepted")


def _same(result, before):
    if len(result) != len(before):
        return False
    for one, other in zip(result, before, strict=True):
        if isinstance(one, np.ndarray | float):
            if np.shape(one) != np.shape(other) or not np.allclose(one, other, 1e-4, 1e-5):
                return False
        elif one != other:
            return False
    return True
