"""Opens TIFF in all its kinds (OME, Aperio, Hamamatsu, Akoya, ImageJ, plain) as levels.

tifffile groups pages into series and finds pyramids. What it leaves open is decided here: which
series is the slide, what unnamed pages are, and which planes are not there at all.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spatiagraph.data.image.level import (
    DAMAGED,
    LazyArray,
    Level,
    OpenImage,
    undecodable,
    with_name,
)
from spatiagraph.data.image.pixel_size import tiff_mpp

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and big, of either byte order
_ALPHA = (1, 2)  # codes of samples that say how opaque a pixel is
_UNNAMED = "IQ"  # what tifffile calls axes of which the file says nothing
_PAGES = ("generic", "uniform", "shaped")  # kinds whose pages belong together by looks alone


def is_tiff(path: Path) -> bool:
    """Check that a file is a TIFF, whatever it is called."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def open_tiff(path: Path, channels: Sequence[int] | None, axes: str | None) -> OpenImage:
    """Opens the largest image of a TIFF.

    Pages that are equal in size and of which the file says nothing are channels, with a warning:
    none is lost. Channels of which a plane is missing are left out, with a warning.

    Args:
        path: The file.
        channels: Channels to keep; all by default.
        axes: What the stored axes are, ``"ZYX"``; what the file says by default.

    Raises:
        ValueError: It cannot be decoded, its axes are not those of an image, or a channel that is
            asked for is missing.
    """
    import tifffile
    import zarr

    try:
        tiff = tifffile.TiffFile(path)
    except DAMAGED as err:
        raise undecodable(path, err) from err
    try:
        main, *alike = _largest(tiff, path)
        for series in (main, *alike):
            _check_stored(series, path)
        stored = [
            [zarr.open_array(s.aszarr(level=i), mode="r") for s in (main, *alike)]
            for i in range(len(main.levels))
        ]
        whole = _whole_channels(tiff, main, path, axes, channels)
        levels: list[Level] = []
        for level, arrays in zip(main.levels, stored, strict=True):
            array: LazyArray = _Pages(arrays) if alike else arrays[0]
            found = "I" * bool(alike) + level.axes
            named = axes or _name_axes(found, array.shape, path, warn=not levels)
            levels.append(Level(array, named, str(path), whole))
        mpp = tiff_mpp(tiff, main.keyframe, main.kind, path)
    except DAMAGED as err:
        tiff.close()
        raise with_name(path, err) from err
    return OpenImage(levels, mpp, tiff.close)


def _largest(tiff: "TiffFile", path: Path) -> "list[TiffPageSeries]":
    """The series that covers most pixels, and after it those that are its other channels.

    Labels, macros and thumbnails are smaller. Of several that are equal in size, those of plain
    TIFF are pages that a program wrote one by one; in other kinds they are other places.
    """
    main = max(tiff.series, key=lambda s: s.sizes.get("height", 1) * s.sizes.get("width", 1))
    alike = [
        s
        for s in tiff.series
        if s is not main and (s.shape, s.axes, s.dtype) == (main.shape, main.axes, main.dtype)
    ]
    if not alike:
        return [main]
    if main.kind in _PAGES and main.axes == "YX":
        return [s for s in tiff.series if s is main or s in alike]
    warnings.warn(
        f"{path.name} holds {len(alike) + 1} images of {main.shape} pixels: the first is taken, "
        "the others are left out. Write one file for each if these are several sections or fields",
        stacklevel=5,
    )
    return [main]


def _check_stored(series: "TiffPageSeries", path: Path) -> None:
    """Refuse pixels that are not in the file, or in one of another folder.

    Tables of a TIFF say where each strip or tile begins and how long it is, so that a file that was
    cut, or whose size was changed, is known without decoding it. Only OME metadata names other
    files: those of one image lie in one folder.

    Raises:
        ValueError: Names the page.
    """
    home, sizes = path.resolve().parent, dict[str, int]()
    first = series.keyframe.parent.filehandle
    if series.dataoffset is not None and series.dataoffset + series.nbytes > first.size:
        raise ValueError(
            f"Expected {series.nbytes:,} bytes of pixels in {path}, got a file of {first.size:,} "
            "bytes. Is the file incomplete?"
        )
    for level in series.levels:
        for number, page in enumerate(level.pages):
            if page is None:  # a file that is not there: decided below
                continue
            handle = page.parent.filehandle
            source = Path(handle.path).resolve()
            if not source.is_relative_to(home):
                raise ValueError(f"Expected all files of {path} in its folder, got {source}")
            begin = np.asarray(page.dataoffsets, dtype=np.int64)
            length = np.asarray(page.databytecounts, dtype=np.int64)
            pieces = int(np.prod((page.keyframe or page).chunked))
            name = f"page {number} of {source.name} ({level.shape} pixels)"
            if len(begin) != len(length) or (len(begin) != pieces and len(begin) != 1):
                raise ValueError(
                    f"Expected {pieces} pieces of {name}, got {len(begin)} places and "
                    f"{len(length)} lengths. Is the file damaged?"
                )
            size = sizes.setdefault(str(source), handle.size)
            wrong = np.flatnonzero((begin < 0) | (length < 0) | (begin + length > size))
            if len(wrong):
                at = int(wrong[0])
                raise ValueError(
                    f"Expected all of {name}, got a file of {size:,} bytes whose piece {at} ends "
                    f"at byte {begin[at] + length[at]:,}. Is the file incomplete?"
                )


def _name_axes(axes: str, shape: Sequence[int], path: Path, warn: bool) -> str:
    """Axes of which the file says nothing: the short one of three holds channels, as pages do."""
    if "Y" not in axes or "X" not in axes:  # QQQ: not even the picture is named
        tail = "YXS" if len(shape) > 2 and shape[-1] <= 4 else "YX"
        axes = "Q" * (len(shape) - len(tail)) + tail
    pages = [i for i, a in enumerate(axes) if a in _UNNAMED and shape[i] > 1]
    named = list(axes)
    if len(pages) == 1 and len(shape) == 3 and shape[2] < shape[0]:  # [H, W, C] page by page
        return "YXC"
    if pages:
        others = [a for a, n in zip(axes, shape, strict=True) if a in "CS" and n > 1]
        if len(pages) > 1 or others:
            raise ValueError(
                f"Expected axes with names in {path}, got {axes!r} of shape {tuple(shape)}: pass "
                'axes=… to SlideImage.open, one letter each: Y, X, C (channels), Z (planes), "ZYX"'
            )
        named[pages[0]] = "C"
        if warn:
            warnings.warn(
                f"{path.name} has {shape[pages[0]]} pages and names no axes: they are taken for "
                'channels. Pass axes="ZYX" to SlideImage.open if they are planes of a z-stack, '
                "or channels=… to keep some",
                stacklevel=5,
            )
    free = iter("TRAPHEMV")  # for axes of length 1, whose letters may not occur twice
    return "".join(next(free) if a in _UNNAMED else a for a in named)


def _whole_channels(
    tiff: "TiffFile",
    series: "TiffPageSeries",
    path: Path,
    axes: str | None,
    channels: Sequence[int] | None,
) -> Sequence[int] | None:
    """Channels to keep: those asked for, or all that are there and say something."""
    missing = np.array([page is None for page in series.pages])
    if missing.any():
        letters = axes or series.axes
        there = _whole(missing, letters, series.shape)
        asked = range(len(there)) if channels is None else channels
        lost = [c for c in asked if c < len(there) and not there[c]]
        if lost:
            files = _missing_files(tiff, path)
            what = (
                f"{path.name} belongs to a set of files of which {', '.join(files)} "
                f"{'is' if len(files) == 1 else 'are'} missing"
                if files
                else f"{int(missing.sum())} of {len(missing)} planes of {path.name} are missing"
            )
            if channels is not None or not there.any():
                raise ValueError(
                    f"Expected all planes of channels {', '.join(map(str, lost))}, but {what}. "
                    "Copy them beside it"
                )
            channels = np.flatnonzero(there).tolist()
            warnings.warn(
                f"{what}: channels {', '.join(map(str, lost))} are left out. Copy the files beside "
                "it to have all",
                stacklevel=5,
            )
    extra = series.keyframe.extrasamples
    if channels is None and extra and extra[-1] in _ALPHA:
        channels = range(series.keyframe.samplesperpixel - 1)
    return channels


def _whole(missing: np.ndarray, axes: str, shape: Sequence[int]) -> np.ndarray:
    """Channels of which every plane is there, ``[C]`` bool; one channel if pages are planes."""
    leading = 0
    while int(np.prod(shape[:leading])) < len(missing):
        leading += 1
    planes = missing.reshape(shape[:leading])
    letters = axes[:leading]
    if "C" not in letters:
        return np.array([not missing.any()])
    rest = tuple(i for i, a in enumerate(letters) if a != "C")
    return np.asarray(~planes.any(axis=rest))


def _missing_files(tiff: "TiffFile", path: Path) -> list[str]:
    """Files that OME metadata names as parts of the image and that do not lie beside it."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(tiff.ome_metadata or "<OME/>")
    except ElementTree.ParseError:
        return []  # refused with its pixel size, which is read from the same text
    names = [str(u.get("FileName")) for u in root.iterfind(".//{*}UUID") if u.get("FileName")]
    return [n for n in dict.fromkeys(names) if not (path.parent / n).exists()]


class _Pages:
    """Arrays ``[H, W]`` of one size as one of ``[C, H, W]``."""

    def __init__(self, arrays: Sequence[LazyArray]):
        self._arrays = arrays
        self.shape = (len(arrays), *arrays[0].shape)
        self.dtype = np.dtype(arrays[0].dtype)
        self.chunks = (1, *getattr(arrays[0], "chunks", arrays[0].shape))

    def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
        return np.stack([np.asarray(array[key[1:]]) for array in self._arrays[key[0]]])
