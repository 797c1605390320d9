"""TIFF in all its kinds (OME, Aperio, Hamamatsu, Akoya, ImageJ, plain) as levels.

tifffile groups pages into series and finds pyramids. What it leaves open is decided here: which
series is the slide, what unnamed pages are, and which planes are not there at all.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spatiagraph.data.image.channel_names import tiff_channel_names
from spatiagraph.data.image.directories import check_directories
from spatiagraph.data.image.level import LazyArray, Level, OpenImage, decoding
from spatiagraph.data.image.orientation import TAG, check_orientation
from spatiagraph.data.image.pixel_size import ome_number, ome_root, tiff_mpp

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and big, of either byte order
_ALPHA = (1, 2)  # codes of samples that say how opaque a pixel is
_NDPI_TAG = (65420).to_bytes(2, "little")
_UNNAMED = "IQ"  # what tifffile calls axes of which the file says nothing
_PAGES = ("generic", "uniform", "shaped")  # kinds whose pages belong together by looks alone


def is_tiff(path: Path) -> bool:
    """Check that a file is a TIFF, whatever it is called."""
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def _is_ndpi(path: Path) -> bool:
    """Check that a TIFF is of Hamamatsu, whose tables of contents have a tag of their own."""
    with path.open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"II*\0":
            return False
        place = int.from_bytes(head[4:], "little")  # of 64 bits there, of 32 elsewhere
        if place + 2 > path.stat().st_size:
            return False
        file.seek(place)
        entries = file.read(2 + 12 * int.from_bytes(file.read(2), "little"))
    return any(entries[i : i + 2] == _NDPI_TAG for i in range(0, len(entries), 12))


def open_tiff(path: Path, channels: Sequence[int] | None, axes: str | None) -> OpenImage:
    """Open the largest image of a TIFF.

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

    with decoding(path):
        tiff = tifffile.TiffFile(path, is_ndpi=_is_ndpi(path))
    try:
        check_directories(tiff, path)
        with decoding(path):
            found = list(tiff.series)
        main, *alike = _largest(found, path)
        with decoding(path):
            orientation = main.keyframe.tags.valueof(TAG)
        check_orientation(orientation, path)
        _check_promised(tiff, main, path)
        for series in (main, *alike):
            _check_stored(series, path)
        with decoding(path):
            stored = [
                [zarr.open_array(s.aszarr(level=i), mode="r") for s in (main, *alike)]
                for i in range(len(main.levels))
            ]
        whole = _whole_channels(tiff, main, path, axes, channels)
        levels: list[Level] = []
        for level, arrays in zip(main.levels, stored, strict=True):
            array: LazyArray = _Pages(arrays) if alike else arrays[0]
            letters = "I" * bool(alike) + level.axes
            named = axes or _name_axes(letters, array.shape, path, warn=not levels)
            levels.append(Level(array, named, str(path), whole))
        mpp = tiff_mpp(tiff, main.keyframe, main.kind, path)
        names = tiff_channel_names(tiff, path)
    except BaseException:  # also on Ctrl-C: nobody else can close what is not returned
        tiff.close()
        raise
    return OpenImage(levels, mpp, tiff.close, names)


def _largest(found: "list[TiffPageSeries]", path: Path) -> "list[TiffPageSeries]":
    """The series that covers most pixels, and after it those that are its other channels.

    Labels, macros and thumbnails are smaller. Of several that are equal in size, those of plain
    TIFF are pages that a program wrote one by one; in other kinds they are other places.
    """
    if not found:
        raise ValueError(f"Expected an image in {path}, got none. Is the file damaged?")
    main = max(found, key=_pixels)
    alike = [
        s
        for s in found
        if s is not main and (s.shape, s.axes, s.dtype) == (main.shape, main.axes, main.dtype)
    ]
    if not alike:
        return [main]
    if main.kind in _PAGES and main.axes == "YX":
        return [s for s in found if s is main or s in alike]
    warnings.warn(
        f"{path.name} holds {len(alike) + 1} images of {main.shape} pixels: the first is taken, "
        "the others are left out. Write one file for each if these are several sections or fields",
        stacklevel=5,
    )
    return [main]


def _pixels(series: "TiffPageSeries") -> int:
    """Pixels of an image, of one channel; by letters, as names of axes differ by version."""
    size = dict(zip(series.axes, series.shape, strict=True))
    return int(size.get("Y", 1) * size.get("X", 1))


def _check_promised(tiff: "TiffFile", series: "TiffPageSeries", path: Path) -> None:
    """Refuse a file that holds less than its metadata says; tifffile shows what is left.

    Raises:
        ValueError: Names what is missing.
    """
    with decoding(path):
        images = (tiff.imagej_metadata or {}).get("images", 1)
        there = len(tiff.pages)
    if series.kind != "imagej" and isinstance(images, int) and images > there:
        raise ValueError(
            f"Expected {images} images in {path}, as ImageJ wrote, got {there}. The file is "
            "incomplete: copy it again"
        )
    pixels = ome_root(tiff.ome_metadata, path).iterfind(".//{*}Pixels")
    sizes = [(ome_number(p, "SizeY", path), ome_number(p, "SizeX", path)) for p in pixels]
    height, width = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    shown = _pixels(series)
    if height * width > shown:
        raise ValueError(
            f"Expected an image of {height:g} × {width:g} pixels in {path}, as its OME metadata "
            f"says, got none larger than {shown:,} pixels. The file is incomplete: copy it again"
        )
    with decoding(path):
        levels = [list(level.pages) for level in series.levels]
    full = levels[0]
    for number, pages in enumerate(levels[1:], 1):
        lost = sum(
            page is None for page, fine in zip(pages, full, strict=False) if fine is not None
        ) + max(len(full) - len(pages), 0)
        if lost:
            raise ValueError(
                f"Expected level {number} of {path} for all of {len(full)} planes, got none for "
                f"{lost}. The file is incomplete: copy it again"
            )


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
        with decoding(path):
            pages = list(level.pages)
        for number, page in enumerate(pages):
            if page is None:  # a file that is not there: decided below
                continue
            handle = page.parent.filehandle
            source = Path(handle.path).resolve()
            if not source.is_relative_to(home):
                raise ValueError(f"Expected all files of {path} in its folder, got {source}")
            with decoding(path):
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
            if channels is not None or not there.any() or not files:
                cure = "Copy them beside it" if files else "The file is incomplete: copy it again"
                raise ValueError(
                    f"Expected all planes of channels {', '.join(map(str, lost))}, but {what}. "
                    f"{cure}, or pass channels=… to do without"
                )
            channels = np.flatnonzero(there).tolist()
            warnings.warn(
                f"{what}: channels {', '.join(map(str, lost))} are left out. Copy the files beside "
                "it to have all",
                stacklevel=5,
            )
    with decoding(path):
        extra = tuple(series.keyframe.extrasamples or ())
        samples = int(series.keyframe.samplesperpixel)
    if channels is None and extra and extra[-1] in _ALPHA:
        channels = range(samples - 1)
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
    root = ome_root(tiff.ome_metadata, path)
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
