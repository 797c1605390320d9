"""Global heaps of HDF5, where text lies: in one that is damaged the library walks for ever."""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

_MARK = b"GCOL\x01\0\0\0"
_SIZE = struct.Struct("<Q")
_ENTRY = struct.Struct("<HHIQ")  # index, references, nothing, bytes
_BLOCK = 2**24


def check_heaps(path: Path) -> None:
    """Refuse an HDF5 file with a heap that the library would not come to the end of.

    The entries of a heap follow each other by their sizes. HDF5 takes the size of the empty entry
    (index 0) as it is stored: where that is 0, it stands still and cannot be interrupted.

    Args:
        path: The file, which is read once.

    Raises:
        ValueError: There is such a heap; names its place.
    """
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for start in _heaps(data):
            if _stands_still(data, start):
                raise ValueError(
                    f"Expected a readable file, got {path.name}, whose text is damaged at byte "
                    f"{start:,}. The file is damaged or incomplete: copy it again"
                )


def _heaps(data: mmap.mmap) -> Iterator[int]:
    """Where heaps begin."""
    for block in range(0, len(data), _BLOCK):
        content = data[block : block + _BLOCK + len(_MARK) - 1]
        at = content.find(_MARK)
        while at >= 0:
            yield block + at
            at = content.find(_MARK, at + 1)


def _stands_still(data: mmap.mmap, start: int) -> bool:
    place = start + len(_MARK)
    if place + _SIZE.size > len(data):
        return False
    end = min(start + _SIZE.unpack_from(data, place)[0], len(data))
    place += _SIZE.size
    while place + _ENTRY.size <= end:
        index, _, _, size = _ENTRY.unpack_from(data, place)
        if index == 0 and size == 0:
            return True
        place += size if index == 0 else _ENTRY.size + -(-size // 8) * 8
    return False
