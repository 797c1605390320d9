"""µm per pixel, from what image files say of themselves: OME, NGFF and the makers of scanners."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

_MICRONS = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4,
    "meter": 1e6, "centimeter": 1e4, "millimeter": 1e3, "micrometer": 1.0, "micron": 1.0,
    "nanometer": 1e-3, "\\u00B5m": 1.0,
}  # fmt: skip
_RESOLUTION_UNITS = {2: 25_400.0, 3: 10_000.0, 4: 1000.0, 5: 1.0}  # TIFF's code → µm


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
        return _resolution_mpp(page, _RESOLUTION_UNITS.get(int(page.resolutionunit)), path)
    if kind == "imagej":
        unit = str((tiff.imagej_metadata or {}).get("unit", ""))
        return _resolution_mpp(page, _MICRONS.get(unit), path)
    return None


def ngff_mpp(multiscale: dict, path: Path) -> float | None:
    """Pixel size of the first data set of an OME-Zarr image.

    Raises:
        ValueError: The pixels are not square.
    """
    axes = [a for a in multiscale["axes"] if isinstance(a, dict)]
    names = [a["name"] for a in axes]
    steps = multiscale["datasets"][0].get("coordinateTransformations", [])
    scale = next((s["scale"] for s in steps if s["type"] == "scale"), None)
    if scale is None or "x" not in names or axes[names.index("x")].get("unit") not in _MICRONS:
        return None
    x, y = (scale[names.index(a)] * _MICRONS[axes[names.index(a)]["unit"]] for a in "xy")
    return _square(x, y, path)


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
        pixels, units = page.tags[f"{axis}Resolution"].value
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
