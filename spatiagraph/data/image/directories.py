"""Directories of a TIFF, followed once: all they point to lies in the file, and numbers are such.

tifffile goes on with the pages and tags that it can read, and only logs the others: a file that was
cut would open as one with fewer channels, levels or planes.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spatiagraph.data.image.level import decoding

if TYPE_CHECKING:
    from tifffile import FileHandle, TiffFile
    from tifffile.tifffile import TiffFormat

_MOST_TAGS = 4096  # of a directory; those of slides have about twenty
_PRIVATE = 32_768  # from here on the makers of programs choose tags, and what they hold
_SUB_DIRECTORIES = 330
_BYTES = np.zeros(2**16, dtype=np.uint64)  # by type; of types that nobody knows nothing is checked
_BYTES[1:14] = [1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4]
_BYTES[16:19] = 8
_INTEGERS = (1, 3, 4, 6, 8, 9, 13, 16, 17, 18)  # types
_ONE = (254, 255, 256, 257, 259, 262, 274, 277, 278, 284, 296, 317, 322, 323)
"""Tags that hold one integer: size, compression, colours, rows of a strip, sides of a tile, …"""
_SOME = (258, 273, 279, 324, 325, _SUB_DIRECTORIES, 338, 339)
"""Tags that hold integers: bits, and places and lengths of strips and tiles, …"""
_OFFSETS = {4: "4", 13: "4", 16: "8", 18: "8"}  # types that a place in the file may have


class _Directory(NamedTuple):
    """Place of a directory, of the next and of those below it."""

    next: int
    below: list[int]


def check_directories(tiff: "TiffFile", path: Path) -> None:
    """Refuse a TIFF one of whose directories, or a value in it, lies behind its end or is no such.

    Args:
        tiff: The open file.
        path: Its name, for messages.

    Raises:
        ValueError: Names the directory and the place it points to.
    """
    seen: set[int] = set()
    with decoding(path):
        offset, number = tiff.pages.first.offset, 0
    while offset:
        if offset in seen:
            raise _wrong(path, f"a directory after {number - 1}", f"directory {number} again")
        seen.add(offset)
        here = _read(tiff, path, offset, f"directory {number}")
        for level, below in enumerate(here.below):  # tifffile does not follow their chains, either
            _read(tiff, path, below, f"level {level + 1} of directory {number}")
        offset, number = here.next, number + 1


def _read(tiff: "TiffFile", path: Path, offset: int, name: str) -> _Directory:
    """One directory: tags as (code, type, number of values, the values or where they are)."""
    kind, file = tiff.tiff, tiff.filehandle
    order, size = kind.byteorder, file.size
    head = _bytes(file, offset, kind.tagnosize)
    number = int.from_bytes(head, "little" if order == "<" else "big")
    length = number * kind.tagsize + kind.offsetsize
    body = _bytes(file, offset + kind.tagnosize, length)
    if len(head) < kind.tagnosize or len(body) < length or offset < 8:
        raise _wrong(path, name, f"place {offset:,} in a file of {size:,} bytes")
    if not 0 < number <= _MOST_TAGS:
        raise _wrong(path, f"{name} with tags", f"{number:,} tags at byte {offset:,}")
    wide = kind.tagsize == 20
    fields = {"code": "u2", "type": "u2", "count": "u8" if wide else "u4"}
    layout = [(field, order + form) for field, form in fields.items()]
    layout.append(("value", order + ("u8" if wide else "u4")))
    tags = np.frombuffer(body, dtype=layout, count=number)
    places = tags["value"].astype(np.uint64)
    if kind.is_ndpi:  # Hamamatsu keeps the upper halves of places behind the directory
        more = _bytes(file, offset + kind.tagnosize + length, 4 * number)
        if len(more) < 4 * number:
            raise _wrong(path, name, f"place {offset:,} in a file of {size:,} bytes")
        places |= np.frombuffer(more, dtype="<u4").astype(np.uint64) << np.uint64(32)
    # more values than bytes are too many, and must not run over
    values = np.minimum(tags["count"].astype(np.uint64), np.uint64(size + 1))
    lengths = values * _BYTES[tags["type"]]
    apart = lengths > kind.tagoffsetthreshold
    lost = (lengths > size) | (places > np.uint64(size) - np.minimum(lengths, np.uint64(size)))
    wrong = np.flatnonzero(apart & lost & (tags["code"] < _PRIVATE))
    if len(wrong):
        at = wrong[0]
        raise _wrong(
            path,
            f"the value of tag {tags['code'][at]} in {name}",
            f"{lengths[at]:,} bytes from {places[at]:,} on in a file of {size:,} bytes",
        )
    one = np.isin(tags["code"], _ONE)
    odd = np.isin(tags["code"], _SOME) & (tags["count"] == 0) | one & (tags["count"] != 1)
    odd |= (one | np.isin(tags["code"], _SOME)) & ~np.isin(tags["type"], _INTEGERS)
    if odd.any():
        code, form, count = (tags[field][odd][0] for field in ("code", "type", "count"))
        raise _wrong(
            path,
            f"{'an integer' if code in _ONE else 'integers'} as tag {code} of {name}",
            f"{count:,} values of type {form}",
        )
    following = int.from_bytes(body[-kind.offsetsize :], "little" if order == "<" else "big")
    return _Directory(following, _below(file, kind, tags, places, apart, body))


def _below(
    file: "FileHandle",
    kind: "TiffFormat",
    tags: NDArray,
    places: NDArray[np.uint64],
    apart: NDArray[np.bool_],
    body: bytes,
) -> list[int]:
    """Places of the directories of lower resolution."""
    found: list[int] = []
    for i in np.flatnonzero(tags["code"] == _SUB_DIRECTORIES):
        width = _OFFSETS.get(int(tags["type"][i]))
        if width is None:
            continue
        number = int(tags["count"][i])
        start = (i + 1) * kind.tagsize - kind.tagoffsetthreshold
        data = _bytes(file, int(places[i]), number * int(width)) if apart[i] else body[start:]
        found += np.frombuffer(data, f"{kind.byteorder}u{width}", count=number).tolist()
    return found


def _bytes(file: "FileHandle", offset: int, number: int) -> bytes:
    """What a file holds at a place; less if it ends before."""
    if offset >= file.size:
        return b""
    file.seek(offset)
    return bytes(file.read(number))


def _wrong(path: Path, expected: str, got: str) -> ValueError:
    return ValueError(
        f"Expected {expected} inside of {path}, got {got}. The file is damaged or incomplete: copy "
        "it again"
    )
