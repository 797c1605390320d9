"""Files and folders that are replaced only by complete ones."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write that takes the place of another once it is complete.

    Args:
        path: The file to be written, or written anew; its parents are made. A link to a file stays,
            and leads to the new one.

    Yields:
        Where to write, with the same suffix. If that fails, the old file stays as it was.
    """
    place = Path(path).resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(place, "new")
    try:
        yield new
        os.replace(new, place)
    finally:
        new.unlink(missing_ok=True)


@contextmanager
def replaced_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to write that takes the place of another once it is complete.

    Args:
        path: The folder to be written, or written anew; its parents are made. A link to a folder
            stays, and leads to the new one.

    Yields:
        Where to write. If that fails, the old folder stays as it was.

    Raises:
        NotADirectoryError: There is a file of that name.
    """
    place = Path(path).resolve()
    if place.exists() and not place.is_dir():
        raise NotADirectoryError(f"Expected a folder to write to, {path} is a file")
    place.parent.mkdir(parents=True, exist_ok=True)
    new, old = _beside(place, "new"), _beside(place, "old")
    if old.is_dir() and not place.is_dir():  # a run was killed between the two moves below
        os.replace(old, place)
    for left in (new, old):
        if left.is_dir():
            shutil.rmtree(left)
    try:
        yield new
        if place.is_dir():
            os.replace(place, old)
        os.replace(new, place)
    finally:
        if not place.is_dir() and old.is_dir():
            os.replace(old, place)
        for left in (new, old):
            if left.is_dir():
                shutil.rmtree(left)


def _beside(place: Path, age: str) -> Path:
    """A hidden neighbour of the same suffix."""
    return place.with_name(f".{place.stem}.{age}{place.suffix}")
