"""Image files as pyramids of levels: PNG, JPEG, TIFF in all its kinds, Zarr, OME-Zarr."""

import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spatiagraph._files import check_file, check_store
from spatiagraph._json import validated
from spatiagraph.data.image.channel_names import ngff_channel_names
from spatiagraph.data.image.level import (
    DAMAGED,
    LazyArray,
    Level,
    OpenImage,
    decoding,
    undecodable,
)
from spatiagraph.data.image.orientation import TAG, check_orientation
from spatiagraph.data.image.pixel_size import Ngff, NgffAxis, ngff_mpp
from spatiagraph.data.image.tiff import is_tiff, open_tiff

_COVERS = {".mrxs", ".vsi"}
_KINDS = "PNG, JPEG, TIFF (also .svs, .ndpi, .qptiff, .scn, .btf)"
_MAX_BYTES = 16 * 2**30  # a PNG or JPEG has to be decoded whole
_UNPACKED, _RATIO = 2**26, 2_000  # bytes; no picture of tissue packs tighter than a thousandfold


def open_levels(
    path: Path, channels: Sequence[int] | None = None, axes: str | None = None
) -> OpenImage:
    """Open an image file by what is in it, whatever it is called.

    Args:
        path: A TIFF of any kind (``.svs``, ``.ndpi``, ``.qptiff``, ``.btf``, …), a Zarr folder, or
            anything Pillow can read.
        channels: Channels to keep; all by default.
        axes: What the stored axes are, if the file does not say it or is wrong.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be decoded as an image.
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected an image at {path}, but there is no such file")
    if path.is_dir():
        return _zarr_levels(path, channels, axes)
    check_file(path, "an image")
    if path.suffix.lower() in _COVERS:
        raise ValueError(
            f"Expected the pixels of a slide, got {path.name}: in this format it holds a small "
            "picture of the slide, whose pixels are in a folder beside it. Convert the slide to "
            "OME-TIFF or OME-Zarr"
        )
    if is_tiff(path):
        return open_tiff(path, channels, axes)
    return _open_picture(path, channels, axes)


def as_level(array: LazyArray | Level, name: str) -> Level:
    """An array ``[H, W]`` or ``[H, W, C]`` as a level.

    Raises:
        ValueError: If it has another number of axes.
    """
    if isinstance(array, Level):
        return array
    if len(array.shape) not in (2, 3):
        raise ValueError(f"Expected {name} of shape [H, W] or [H, W, C], got {tuple(array.shape)}")
    return Level(array, "YXC"[: len(array.shape)], name)


def _orientation(picture: Any) -> object:
    """The tag of a decoded picture; broken EXIF says nothing of pixels that are whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return picture.getexif().get(TAG)
        except (SyntaxError, ValueError, struct.error, OSError):
            return None


def _open_picture(path: Path, channels: Sequence[int] | None, axes: str | None) -> OpenImage:
    from PIL import Image, UnidentifiedImageError

    # Pillow refuses pictures of 0.18 gigapixels as "decompression bombs"; slides are that large.
    # Its limit is a module variable: lift it while reading, and check the size ourselves.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as picture:
            picture.verify()  # checksums of a PNG, which decoding does not look at
        with Image.open(path) as picture:
            num_bytes = picture.width * picture.height * len(picture.getbands())
            is_bomb = num_bytes > max(_UNPACKED, _RATIO * path.stat().st_size)
            orientation = None
            if num_bytes <= _MAX_BYTES and not is_bomb:
                mode = {
                    "P": "RGB",
                    "CMYK": "RGB",
                    "YCbCr": "RGB",
                    "RGBA": "RGB",
                    "1": "L",
                    "LA": "L",
                }
                pixels = np.asarray(picture.convert(mode.get(picture.mode, picture.mode)))
                orientation = _orientation(picture)
    except UnidentifiedImageError as err:
        raise ValueError(
            f"Expected an image that can be decoded, got {path}, which is none of {_KINDS} or is "
            "damaged. Convert the formats of other makers (.czi, .nd2, .lif) to OME-TIFF"
        ) from err
    except (*DAMAGED, SyntaxError) as err:  # Pillow reports broken PNG as SyntaxError
        raise undecodable(path, err) from err
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if is_bomb:
        raise ValueError(
            f"Expected a picture, got {path} of {path.stat().st_size:,} bytes that claims to hold "
            f"{num_bytes:,}. Is the file damaged?"
        )
    check_orientation(orientation, path)
    if num_bytes > _MAX_BYTES:
        raise ValueError(
            f"Expected a picture below {_MAX_BYTES / 2**30:.0f} GiB, got "
            f"{num_bytes / 2**30:.0f} GiB in {path}; convert it to a tiled TIFF, which is read "
            "piece by piece"
        )
    return OpenImage([Level(pixels, axes or "YXS"[: pixels.ndim], str(path), channels)], None)


def _zarr_levels(path: Path, channels: Sequence[int] | None, axes: str | None) -> OpenImage:
    import zarr

    check_store(path)
    with decoding(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # foreign files inside the folder are no concern of ours
        node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        axes = axes or _zarr_axes(node.shape)
        return OpenImage([Level(node, axes, str(path), channels)], None)
    scales = _multiscales(node, path)
    if scales:
        image = validated(scales[0], Ngff, repr(str(path)), at="multiscales.0")
        places = [level.path for level in image.datasets]
        outside = [p for p in places if p.startswith("/") or ".." in p.split("/")]
        if outside:
            raise ValueError(f"Expected arrays inside of {path}, got {outside[0]!r}")
        with decoding(path):
            arrays = [zarr.open_array(node.store_path / p, mode="r") for p in places]
        letters = "".join(a.name if isinstance(a, NgffAxis) else a for a in image.axes).upper()
        mpp = ngff_mpp(image, path)
    else:
        with decoding(path):
            arrays = [a for _, a in node.arrays()]
        arrays.sort(key=lambda a: -int(np.prod(a.shape)))
        if not arrays:
            return _zarr_levels(path / _only_image(node, path), channels, axes)
        letters, mpp = _zarr_axes(arrays[0].shape), None
    levels = [Level(a, axes or letters, str(path), channels) for a in arrays]
    return OpenImage(levels, mpp, channel_names=ngff_channel_names(_attributes(node, path)))


def _multiscales(group: Any, path: Path) -> list[Any]:
    """What a group says of the images it holds, empty if nothing."""
    inner = _attributes(group, path)
    found = inner.get("multiscales", []) if isinstance(inner, dict) else []
    if not isinstance(found, list) or not isinstance(inner, dict):
        raise ValueError(f"Expected 'multiscales' in {path} as a list, got {found!r:.80}")
    return found


def _attributes(group: Any, path: Path) -> Any:
    """What OME-Zarr says of a group."""
    with decoding(path):
        attributes = dict(group.attrs)
    return attributes.get("ome", attributes)


def _only_image(group: Any, path: Path) -> str:
    """Name of the image in a group of images, as bioformats2raw writes one."""
    with decoding(path):
        groups = list(group.groups())
    names = sorted(name for name, part in groups if _multiscales(part, path))
    if len(names) != 1:
        have = f"{len(names)}: {', '.join(names[:8])}. Pass the path of one" if names else "none"
        raise ValueError(f"Expected arrays of an image pyramid in {path}, or one image, got {have}")
    return names[0]


def _zarr_axes(shape: Sequence[int]) -> str:
    """Axes of an array without metadata: the shorter end of three axes holds the channels."""
    if len(shape) == 3:
        return "YXC" if shape[-1] <= shape[0] else "CYX"
    return "TCZYX"[-len(shape) :] if len(shape) != 4 else "CZYX"
