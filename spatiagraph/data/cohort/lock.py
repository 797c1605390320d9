"""One writer at a time: a lock that the system lets go of, however its process ends."""

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class BusyError(OSError):
    """A cohort that another process is writing to."""


@contextmanager
def only_writer(place: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes from writing to a folder; a file system without locks is warned of.

    Args:
        place: A folder, there or not; the lock is a hidden file beside it.
        wait: Wait until others have written, for what takes a moment only.

    Raises:
        BusyError: Another process writes to it now.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    file = place.with_name(f".{place.stem}.lock")
    descriptor = _locked(file, place, wait)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is still ours
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Check that some process keeps others from writing to what is in a folder.

    Args:
        folder: A folder; what lies deeper is not looked at.
    """
    return any(_is_locked(file) for file in folder.glob(".*.lock"))


def _is_locked(file: Path) -> bool:
    try:
        descriptor = os.open(file, os.O_RDWR)
    except FileNotFoundError:  # let go of in between
        return False
    try:
        _lock(descriptor, wait=False)
    except OSError as err:
        return err.errno not in _NO_LOCKS
    else:
        return False
    finally:
        os.close(descriptor)


def _locked(file: Path, place: Path, wait: bool) -> int:
    """Descriptor of the file, locked, and still the file of that name."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, wait)
        except OSError as err:
            if err.errno in _NO_LOCKS:  # Lustre and NFS as some clusters mount them
                logger.warning(
                    "no locks on the file system of %s (%s): make sure that nobody else writes to "
                    "it", place, err.strerror,
                )  # fmt: skip
                return descriptor
            os.close(descriptor)
            raise BusyError(
                f"Expected {str(place)!r} to be free, another process is writing to it: wait until "
                "it has ended"
            ) from err
        if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()):
            return descriptor
        os.close(descriptor)  # its owner has removed it in between


def _lock(descriptor: int, wait: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
