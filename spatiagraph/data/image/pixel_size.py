"""µm per pixel, from what image files say of themselves: OME, NGFF and the makers of scanners."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from spatiagraph._json import Schema

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from tifffile import TiffFile, TiffPage

_MICRONS = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4,
    "meter": 1e6, "centimeter": 1e4, "millimeter": 1e3, "micrometer": 1.0, "micron": 1.0,
    "nanometer": 1e-3, "\\u00B5m": 1.0,
}  # fmt: skip
_APART = 0.05  # two scales of one image
_RESOLUTION_UNITS = {2: 25_400.0, 3: 10_000.0, 4: 1000.0, 5: 1.0}  # TIFF's code → µm


class NgffAxis(Schema, extra="ignore"):
    """Axis of an OME-Zarr image."""

    name: str
    unit: str | None = None


class NgffTransformation(Schema, extra="ignore"):
    """Transformation from pixels to coordinates."""

    type: str
    scale: list[float] | None = None


class NgffDataset(Schema, extra="ignore"):
    """Level of an OME-Zarr image."""

    path: str
    coordinateTransformations: list[NgffTransformation] = []


class Ngff(Schema, extra="ignore"):
    """OME-Zarr image, an entry of ``multiscales``."""

    axes: list[NgffAxis | str]
    datasets: list[NgffDataset] = Field(min_length=1)


def warn_of_scales(mpp: float, stated: float | None, source: str, stacklevel: int = 2) -> None:
    """Warn of a scale that is taken for an image which, or whose folder, states another.

    Every scale of an image that something states passes here, whoever gave the one that is taken:
    a picture that was made smaller often keeps the scale of the large one, so that neither is
    right by itself.

    Args:
        mpp: µm per pixel that are taken.
        stated: µm per pixel that are stated, if any are.
        source: Where they are stated, for the message.
        stacklevel: As of :func:`warnings.warn`.
    """
    if stated is None or abs(np.log(mpp / stated)) <= _APART:
        return
    warnings.warn(
        f"{source} says that pixels of the image are {stated:.4g} µm, and they are taken to be "
        f"{mpp:.4g} µm: pass image_mpp={stated:.4g} if the former is right",
        stacklevel=stacklevel + 1,
    )


def tiff_mpp(tiff: "TiffFile", page: "TiffPage", kind: str, path: Path) -> float | None:
    """Pixel size of a TIFF, where its maker is known to write a true one.

    Resolution tags of other programs mostly say 72 dots per inch, of a print; they are not used.

    Args:
        tiff: The file.
        page: First page of the image.
        kind: What tifffile takes the image for: ``"ome"``, ``"svs"``, ``"ndpi"``, …
        path: The file, for messages.

    Raises:
        ValueError: The metadata is damaged, or the pixels are not square.
    """
    if tiff.ome_metadata:
        return _ome_mpp(tiff.ome_metadata, path)
    if kind == "svs":
        return _aperio_mpp(page.description)
    if kind in ("ndpi", "qpi"):
        code = page.resolutionunit
        unit_um = _RESOLUTION_UNITS.get(code) if isinstance(code, int) else None
        return _resolution_mpp(page, unit_um, path)
    if kind == "imagej":
        unit = str((tiff.imagej_metadata or {}).get("unit", ""))
        return _resolution_mpp(page, _MICRONS.get(unit), path)
    return None


def ngff_mpp(multiscale: Ngff, path: Path) -> float | None:
    """Pixel size of the first data set of an OME-Zarr image.

    Raises:
        ValueError: The pixels are not square, or an axis has no scale.
    """
    axes = {a.name: (i, a) for i, a in enumerate(multiscale.axes) if isinstance(a, NgffAxis)}
    steps = multiscale.datasets[0].coordinateTransformations
    scale = next((s.scale for s in steps if s.type == "scale" and s.scale is not None), None)
    units = [axes[a][1].unit for a in "xy" if a in axes]
    if scale is None or len(units) < 2 or any(unit not in _MICRONS for unit in units):
        return None
    if len(scale) != len(multiscale.axes):
        raise ValueError(
            f"Expected a scale for each of {len(multiscale.axes)} axes in {path}, got {len(scale)}"
        )
    x, y = (scale[axes[a][0]] * _MICRONS[str(axes[a][1].unit)] for a in "xy")
    return _square(x, y, path)


def ome_root(xml: str | None, path: Path) -> "Element":
    """OME metadata as XML, empty if there is none.

    Args:
        xml: The text.
        path: The file, for the message.

    Raises:
        ValueError: It is no XML.
    """
    from xml.etree import ElementTree

    try:
        return ElementTree.fromstring(xml or "<OME/>")
    except ElementTree.ParseError as err:
        raise ValueError(f"Expected OME metadata to be XML in {path}, got {err}") from err


def ome_number(pixels: "Element", name: str, path: Path) -> float:
    """An attribute of an image in OME metadata that has to be a positive number.

    Args:
        pixels: Element ``Pixels``.
        name: The attribute.
        path: The file, for the message.

    Raises:
        ValueError: It is none.
    """
    text = pixels.get(name, "")
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 < number < float("inf"):
        raise ValueError(f"Expected {name} in the OME metadata of {path} above 0, got {text!r}")
    return number


def _ome_mpp(xml: str, path: Path) -> float | None:
    pixels = ome_root(xml, path).find(".//{*}Pixels")
    if pixels is None or "PhysicalSizeX" not in pixels.attrib:
        return None
    scale = []
    for axis in "XY":
        name = f"PhysicalSize{axis}" if f"PhysicalSize{axis}" in pixels.attrib else "PhysicalSizeX"
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
        if unit not in _MICRONS:
            return None  # "pixel" and "reference frame" are no lengths
        scale.append(ome_number(pixels, name, path) * _MICRONS[unit])
    return _square(scale[0], scale[1], path)


def _aperio_mpp(description: str) -> float | None:
    """``…|MPP = 0.4990|…``."""
    for part in description.split("|"):
        name, _, value = part.partition("=")
        if name.strip() == "MPP":
            try:
                return float(value)
            except ValueError:
                return None
    return None


def _resolution_mpp(page: "TiffPage", unit_um: float | None, path: Path) -> float | None:
    """From pixels per unit of length, which TIFF keeps in tags."""
    if unit_um is None or not {"XResolution", "YResolution"} <= {t.name for t in page.tags}:
        return None
    size = []
    for axis in "XY":
        value = page.tags[f"{axis}Resolution"].value
        if not (
            isinstance(value, tuple)
            and len(value) == 2
            and all(isinstance(part, int) for part in value)
        ):
            raise ValueError(
                f"Expected {axis}Resolution in {path} as one fraction, got {str(value)[:80]!r}. "
                "Is the file damaged?"
            )
        pixels, units = value
        if not pixels or not units:
            return None
        size.append(unit_um * units / pixels)
    return _square(size[0], size[1], path)


def _square(x: float, y: float, path: Path) -> float:
    if not np.isclose(x, y, rtol=0.01):
        raise ValueError(
            f"Expected square pixels, got {x:g} x {y:g} µm in {path}; resample the image first"
        )
    return x
