"""Orientation tags of pictures (EXIF, TIFF): pixels that are shown in another order than stored."""

from pathlib import Path

TAG = 274
"""Of EXIF and of TIFF."""
_SHOWN = {
    2: "mirrored left to right",
    3: "turned by 180°",
    4: "mirrored top to bottom",
    5: "mirrored and turned by 90°",
    6: "turned by 90° clockwise",
    7: "mirrored and turned by 90°",
    8: "turned by 90° anticlockwise",
}


def check_orientation(value: object, path: Path) -> None:
    """Refuse pixels that a tag says are shown turned or mirrored.

    Browsers and OpenCV heed the tag, tifffile and Bio-Formats do not, so positions of cells may
    count the stored pixels or the shown ones, and nothing tells which.

    Args:
        value: The tag; ``None`` if there is none, and any that is not of the standard says nothing.
        path: The file, for the message.

    Raises:
        ValueError: It is none of upright pixels.
    """
    if not isinstance(value, int) or value not in _SHOWN:
        return
    raise ValueError(
        f"Expected pixels in the order in which they are shown, got {path.name} with orientation "
        f"{value}: shown {_SHOWN[value]}. If cells count the shown pixels, write them so, by "
        "PIL.ImageOps.exif_transpose; if the stored ones, drop the tag, by exiftool -Orientation="
    )
