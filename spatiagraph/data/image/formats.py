"""Opens image files as pyramids of levels: PNG, JPEG, TIFF, OME-TIFF, Zarr, OME-Zarr."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spatiagraph.data.image.level import LazyArray, Level

_MICRONS = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4,
    "meter": 1e6, "centimeter": 1e4, "millimeter": 1e3, "micrometer": 1.0, "micron": 1.0,
    "nanometer": 1e-3,
}  # fmt: skip
_ALPHA = (1, 2)  # TIFF's codes for samples that say how opaque a pixel is
_MAX_BYTES = 16 * 2**30  # a PNG or JPEG has to be decoded whole


class OpenImage(NamedTuple):
    """Levels from fine to coarse, µm per pixel if the file says so, and what closes the file."""

    levels: list[Level]
    mpp: float | None
    close: Callable[[], object] = tuple  # nothing to close


def open_levels(path: Path, channels: Sequence[int] | None = None) -> OpenImage:
    """Opens an image file by its suffix.

    Args:
        path: ``.tif``, ``.tiff``, ``.btf``, ``.zarr``, ``.png``, ``.jpg``, ``.jpeg`` or anything
            Pillow can read.
        channels: Channels to keep; all by default.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be decoded as an image.
    """
    if not path.exists():
        raise FileNotFoundError(f"Expected an image at {path}, but there is no such file")
    if path.suffix.lower() in {".tif", ".tiff", ".btf"}:
        return _open_tiff(path, channels)
    if path.is_dir():
        return _open_zarr(path, channels)
    return _open_picture(path, channels)


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


def _undecodable(path: Path, err: Exception) -> ValueError:
    return ValueError(
        f"Expected an image that can be decoded, got {path} ({err}). Is the file damaged, "
        "incomplete or not an image?"
    )


def _open_picture(path: Path, channels: Sequence[int] | None) -> OpenImage:
    from PIL import Image

    # Pillow refuses pictures of 0.18 gigapixels as "decompression bombs"; slides are that large.
    # Its limit is a module variable: lift it while reading, and check the size ourselves.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as picture:
            num_bytes = picture.width * picture.height * len(picture.getbands())
            if num_bytes <= _MAX_BYTES:
                mode = {
                    "P": "RGB",
                    "CMYK": "RGB",
                    "YCbCr": "RGB",
                    "RGBA": "RGB",
                    "1": "L",
                    "LA": "L",
                }
                pixels = np.asarray(picture.convert(mode.get(picture.mode, picture.mode)))
    except (OSError, SyntaxError, ValueError) as err:  # Pillow reports broken PNG as SyntaxError
        raise _undecodable(path, err) from err
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    if num_bytes > _MAX_BYTES:
        raise ValueError(
            f"Expected a picture below {_MAX_BYTES / 2**30:.0f} GiB, got "
            f"{num_bytes / 2**30:.0f} GiB in {path}; convert it to a tiled TIFF, which is read "
            "piece by piece"
        )
    return OpenImage([Level(pixels, "YXS"[: pixels.ndim], str(path), channels)], None)


def _open_tiff(path: Path, channels: Sequence[int] | None) -> OpenImage:
    import tifffile
    import zarr

    try:
        tiff = tifffile.TiffFile(path)
    except (OSError, ValueError, KeyError) as err:
        raise _undecodable(path, err) from err
    try:
        series = tiff.series[0]
        extra = series.keyframe.extrasamples
        if channels is None and extra and extra[-1] in _ALPHA:
            channels = range(series.keyframe.samplesperpixel - 1)
        levels = []
        for i, stored in enumerate(series.levels):
            array = zarr.open_array(series.aszarr(level=i), mode="r")
            levels.append(Level(array, _tiff_axes(stored.axes, stored.shape), str(path), channels))
        mpp = _ome_mpp(tiff.ome_metadata, path) if tiff.ome_metadata else None
    except (IndexError, KeyError, OSError, RuntimeError) as err:
        tiff.close()
        raise _undecodable(path, err) from err
    except ValueError:
        tiff.close()
        raise
    return OpenImage(levels, mpp, tiff.close)


def _tiff_axes(axes: str, shape: Sequence[int]) -> str:
    """Unnamed axes of plain TIFF files: a short one holds channels, a stack is a z-stack."""
    known = axes.replace("I", "Z").replace("Q", "Z")
    if "Y" not in known or "X" not in known or known.count("Z") > 1:  # "shaped" series: QQYX, QQQ
        tail = "YXS" if len(shape) > 2 and shape[-1] <= 4 else "YX"
        known = "TZ"[max(0, 2 - (len(shape) - len(tail))) :] + tail
    return known


def _ome_mpp(xml: str, path: Path) -> float | None:
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as err:
        raise ValueError(f"Expected OME metadata to be XML in {path}, got {err}") from err
    pixels = root.find(".//{*}Pixels")
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return None
    scale = []
    for axis in "XY":
        size = pixels.get(f"PhysicalSize{axis}", pixels.attrib["PhysicalSizeX"])
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if unit not in _MICRONS:
            return None  # "pixel" and "reference frame" are no lengths
        scale.append(float(size) * _MICRONS[unit])
    return _square(scale[0], scale[1], path)


def _square(x: float, y: float, path: Path) -> float:
    if not np.isclose(x, y, rtol=0.01):
        raise ValueError(
            f"Expected square pixels, got {x:g} x {y:g} µm in {path}; resample the image first"
        )
    return x


def _open_zarr(path: Path, channels: Sequence[int] | None) -> OpenImage:
    import zarr

    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # foreign files inside the folder are no concern of ours
            node = zarr.open(str(path), mode="r")
    except (OSError, ValueError, KeyError) as err:
        raise _undecodable(path, err) from err
    if isinstance(node, zarr.Array):
        return OpenImage([Level(node, _zarr_axes(node.shape), str(path), channels)], None)
    attributes: dict[str, Any] = dict(node.attrs)
    scales = attributes.get("ome", attributes).get("multiscales")
    if scales:
        arrays = [
            zarr.open_array(node.store_path / d["path"], mode="r") for d in scales[0]["datasets"]
        ]
        axes = "".join(a["name"] if isinstance(a, dict) else a for a in scales[0]["axes"]).upper()
        mpp = _ngff_mpp(scales[0], path)
    else:
        arrays = sorted((a for _, a in node.arrays()), key=lambda a: -int(np.prod(a.shape)))
        if not arrays:
            raise ValueError(f"Expected arrays of an image pyramid in {path}, got an empty group")
        axes, mpp = _zarr_axes(arrays[0].shape), None
    return OpenImage([Level(a, axes, str(path), channels) for a in arrays], mpp)


def _zarr_axes(shape: Sequence[int]) -> str:
    """Axes of an array without metadata: the shorter end of three axes holds the channels."""
    if len(shape) == 3:
        return "YXC" if shape[-1] <= shape[0] else "CYX"
    return "TCZYX"[-len(shape) :] if len(shape) != 4 else "CZYX"


def _ngff_mpp(multiscale: dict, path: Path) -> float | None:
    """Pixel size in µm of the first dataset of an OME-Zarr image."""
    axes = [a for a in multiscale["axes"] if isinstance(a, dict)]
    names = [a["name"] for a in axes]
    steps = multiscale["datasets"][0].get("coordinateTransformations", [])
    scale = next((s["scale"] for s in steps if s["type"] == "scale"), None)
    if scale is None or "x" not in names or axes[names.index("x")].get("unit") not in _MICRONS:
        return None
    x, y = (scale[names.index(a)] * _MICRONS[axes[names.index(a)]["unit"]] for a in "xy")
    return _square(x, y, path)
