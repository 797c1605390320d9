"""Files of a slide against the list of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

from spatiagraph.data.cohort.layout import TILES, SlideFiles, file_hash


def damaged_files(
    folder: Path, found: SlideFiles, wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[Path]:
    """Files of a slide that are missing, or not as they were written; each is read.

    Args:
        folder: Folder of the slide.
        found: The list of its files.
        wanted: Which of them to look at, by path in the folder.
    """
    listed = dict(found.files)
    for result in found.results:
        listed |= result.files
    for name, (size, digest) in listed.items():
        path = folder / name
        if wanted(name) and (not path.is_file() or file_hash(path) != (size, digest)):
            yield path


def is_of_tiles(name: str) -> bool:
    """Check that a file, by path in the folder of a slide, is of a tile."""
    return name.startswith(f"{TILES}/")
