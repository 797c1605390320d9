"""Files that are replaced only by complete ones."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write that takes the place of another once it is complete.

    Args:
        path: The file to be written, or written anew; its parents are made.

    Yields:
        Where to write. If that fails, the old file stays as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    try:
        yield new
        os.replace(new, target)
    finally:
        new.unlink(missing_ok=True)
