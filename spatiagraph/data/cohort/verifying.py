"""Files of a slide against the list of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from spatiagraph.data.cohort.layout import SlideFiles, file_hash


def damaged_files(folder: Path, found: SlideFiles, parts: Sequence[str] = ("",)) -> Iterator[Path]:
    """Files of a slide that are missing, or not as they were written; each is read.

    Args:
        folder: Folder of the slide.
        found: The list of its files.
        parts: Beginnings of the paths to look at, in the folder; all of them when not given.
    """
    listed = dict(found.files)
    for result in found.results:
        listed |= result.files
    for name, (size, digest) in listed.items():
        path = folder / name
        wanted = name.startswith(tuple(parts))
        if wanted and (not path.is_file() or file_hash(path) != (size, digest)):
            yield path


def check_files(folder: Path, found: SlideFiles, slide_id: str, parts: Sequence[str]) -> None:
    """Refuse files that are missing, which zarr would take for zeros, or not as they were written.

    Args:
        folder: Folder of the slide.
        found: The list of its files.
        slide_id: Name of the slide, for the message.
        parts: Beginnings of the paths to look at, in the folder.

    Raises:
        ValueError: Names the first.
    """
    for path in damaged_files(folder, found, parts):
        raise ValueError(
            f"Expected {str(path)!r} as it was written, found it missing or damaged: restore it, "
            f"or replace slide {slide_id!r} of the cohort"
        )
