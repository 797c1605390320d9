"""Files and folders that are replaced only by complete ones, and full disks that are named."""

import errno
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the quota, the limit of a file
_BLOCK = 2**16  # bytes, more than what a library may have left of a page
_QUIET, _PATIENCE = 0.05, 10.0  # seconds between looks at a folder, and until we give up


class DiskFullError(OSError):
    """Disk that takes no more: ``filename`` says where."""


def check_file(path: Path, what: str) -> None:
    """Refuse a folder, a pipe or a device: reading would fail, wait, or never come to an end.

    Args:
        path: The file.
        what: What it should be, for the message.

    Raises:
        ValueError: It is no file.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "a pipe or device" if path.exists() else "nothing"
        raise ValueError(f"Expected {what} at {path}, found {found}")


def check_store(path: Path) -> None:
    """Refuse a Zarr store that holds a pipe, a device or a link to nothing, which zarr would open.

    Args:
        path: The folder; what is linked into it as a folder is not looked at.

    Raises:
        ValueError: Names the first.
    """
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                check_store(Path(entry.path))
            elif not entry.is_dir():
                check_file(Path(entry.path), "a file of a store")


def check_store_place(path: Path) -> None:
    """Refuse to put a Zarr store in place of a folder of other things, which would be lost.

    Args:
        path: Where the store is to be.

    Raises:
        FileExistsError: There is a folder that is neither empty nor a store.
    """
    marks = (".zgroup", "zarr.json", ".zattrs")
    if path.is_dir() and any(path.iterdir()) and not any((path / m).exists() for m in marks):
        raise FileExistsError(
            f"Expected a new folder or a Zarr store to replace, {str(path)!r} holds something else"
        )


def check_output_folder(path: Path) -> None:
    """Refuse a folder that cannot be made or written to, before the work; nothing is made yet.

    Raises:
        OSError: It is a file or inside of one, or may not be written to.
    """
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"Expected a folder to write to, {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"Expected a folder that can be written to, got {there}")


@contextmanager
def replaced_file(path: str | os.PathLike[str], *, shared: bool = False) -> Iterator[Path]:
    """A file to write that takes the place of another once it is complete and on the disk.

    Args:
        path: The file to be written, or written anew; its parents are made. A link to a file stays,
            and leads to the new one.
        shared: Other threads and processes may write the same file; the last one is kept.

    Yields:
        Where to write, with the same suffix. If that fails, the old file stays as it was.

    Raises:
        NotADirectoryError: A part of the path to it is a file.
        DiskFullError: There is no space for it, whatever library came to know first.
    """
    place = _resolved(path)
    own = f"{os.getpid()}-{threading.get_ident()}." if shared else ""
    new = _beside(place, f"{own}new")
    with full_disk_named(path):
        _make_parents(place)
        try:
            with _full_disk_probed(new):
                yield new
            _flush(new)
            os.replace(new, place)
            _flush_folder(place.parent)
        finally:
            new.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to write that takes the place of another once it is complete and on the disk.

    Args:
        path: The folder to be written, or written anew; its parents are made. A link to a folder
            stays, and leads to the new one.

    Yields:
        Where to write. If that fails, the old folder stays as it was.

    Raises:
        NotADirectoryError: There is a file of that name, or a part of the path to it is one.
        DiskFullError: There is no space for it, whatever library came to know first.
    """
    place = _resolved(path)
    if place.exists() and not place.is_dir():
        raise NotADirectoryError(f"Expected a folder to write to, {path} is a file")
    new, old = _beside(place, "new"), _beside(place, "old")
    if old.is_dir() and not place.is_dir():  # a run was killed between the two moves below
        os.replace(old, place)
    with full_disk_named(path):
        _make_parents(place)
        for left in (new, old):
            if left.is_dir():
                shutil.rmtree(left)
        done = False
        try:
            with _full_disk_probed(new / "probe"):
                yield new
            flush_folder(new)
            if place.is_dir():
                os.replace(place, old)
            os.replace(new, place)
            _flush_folder(place.parent)
            done = True
        finally:
            if not place.is_dir() and old.is_dir():
                os.replace(old, place)
            if old.is_dir():
                shutil.rmtree(old)
            if not done:
                _remove_for_good(new)


def flush_folder(path: Path) -> None:
    """Wait until a folder and all that is in it are on the disk.

    Args:
        path: The folder.
    """
    for folder, _, names in os.walk(path):
        for name in names:
            _flush(Path(folder) / name)
        _flush_folder(Path(folder))


def _make_parents(place: Path) -> None:
    for parent in place.parents:
        if parent.is_file():
            raise NotADirectoryError(f"Expected a folder to write to, {parent} is a file")
    place.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def full_disk_named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what a library says of a full disk into one error that names the path.

    Libraries that write by themselves raise classes of their own (safetensors, FAISS, HDF5), and
    even Python names no file when a write fails. Other errors pass.

    Args:
        path: What is written inside the block.

    Raises:
        DiskFullError: There is no space for it.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as err:
        for cause in _causes(err):
            number = _full_disk_number(cause)
            if number is not None:
                raise DiskFullError(
                    number,
                    f"{os.strerror(number)}: free some space, or write elsewhere; files that were "
                    "there before are whole",
                    _full_place(cause, Path(path)),
                ) from err
        raise


@contextmanager
def _full_disk_probed(file: Path) -> Iterator[None]:
    """Ask the disk itself when writing failed: not every library passes on why.

    Args:
        file: What was being written, or what would be written beside it.
    """
    try:
        yield
    except Exception:
        try:
            with file.open("ab", buffering=0) as more:
                more.write(bytes(_BLOCK))
                more.write(bytes(_BLOCK))  # the first may be written in part
        except OSError as full:
            if full.errno in _FULL:
                raise
        raise


def _remove_for_good(folder: Path) -> None:
    """Delete a folder into which threads of a library may still be writing.

    An error or Ctrl-C ends the call, not the threads; what they had begun comes after it.
    """
    end = time.monotonic() + _PATIENCE
    while folder.is_dir() and time.monotonic() < end:
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(_QUIET)


def _causes(err: BaseException) -> Iterator[BaseException]:
    """An error, those it was raised from or while handling, and the members of groups."""
    seen: set[int] = set()
    left: list[BaseException | None] = [err]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left += [each.__context__, each.__cause__]
        if isinstance(each, BaseExceptionGroup):
            left += each.exceptions


def _full_disk_number(err: BaseException) -> int | None:
    """The number of an error that says by number or by text that a disk is full."""
    if isinstance(err, OSError) and err.errno in _FULL:
        return err.errno
    said = str(err)
    return next((number for number in _FULL if os.strerror(number) in said), None)


def _full_place(err: BaseException, path: Path) -> str:
    """What is full: the path, unless the error names another, such as a temporary file."""
    named = err.filename if isinstance(err, OSError) else None
    if isinstance(named, str | os.PathLike):
        other = Path(named).resolve()
        if not other.is_relative_to(path.resolve().parent):
            return str(other)
    return str(path)


def _flush(path: Path) -> None:
    """Wait until a file is on the disk: a rename may get there before what it renames."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _resolved(path: str | os.PathLike[str]) -> Path:
    """A path with its links followed.

    Raises:
        OSError: A link leads to itself.
    """
    try:
        return Path(path).resolve()
    except RuntimeError as err:  # what Python says of a loop before 3.13
        raise OSError(
            f"Expected a place to write to, {path} is a link that leads to itself"
        ) from err


def _beside(place: Path, age: str) -> Path:
    """A hidden neighbour of the same suffix."""
    return place.with_name(f".{place.stem}.{age}{place.suffix}")
