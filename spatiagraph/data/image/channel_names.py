"""Names of the channels of an image, where its file has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spatiagraph.data.image.pixel_size import ome_root

if TYPE_CHECKING:
    from tifffile import TiffFile


def tiff_channel_names(tiff: "TiffFile", path: Path) -> tuple[str, ...]:
    """Names in OME metadata or those of ImageJ, empty if a channel has none.

    Args:
        tiff: The file.
        path: Its path, for messages.

    Raises:
        ValueError: The metadata is damaged.
    """
    pixels = ome_root(tiff.ome_metadata, path).find(".//{*}Pixels")
    if pixels is not None:
        names = [str(c.get("Name") or "") for c in pixels.iterfind("{*}Channel")]
    else:
        found = (tiff.imagej_metadata or {}).get("Labels", [])
        names = [str(n) for n in found] if isinstance(found, list) else []
    return tuple(names) if all(names) else ()


def ngff_channel_names(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Labels of the channels of an OME-Zarr image, empty if a channel has none.

    Args:
        attributes: Of its group, or what it keeps under ``ome``.
    """
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    if not isinstance(channels, list):
        return ()
    names = [str(c.get("label") or "") if isinstance(c, Mapping) else "" for c in channels]
    return tuple(names) if all(names) else ()
