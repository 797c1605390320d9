"""Parts that every reader returns: cells, image and molecules, already in µm."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from spatiagraph import keys
from spatiagraph.data.checks import as_positions, check_own_molecules
from spatiagraph.data.image import SlideImage
from spatiagraph.data.image.formats import open_levels
from spatiagraph.data.image.pixel_size import warn_of_scales
from spatiagraph.data.notes import our_notes
from spatiagraph.data.read.corners import OutlinesFile, place_outlines
from spatiagraph.data.read.tables import positive_number
from spatiagraph.data.scale import Scale, declared_scale, unknown_scale
from spatiagraph.data.slide import PHOTOGRAPHED, Expression, Slide, expression_matrix
from spatiagraph.data.units import PIXEL_UM, scale_from_pitch
from spatiagraph.data.writable import make_values_writable

PathLike = str | os.PathLike[str]

_PLAIN = (".png", ".jpg", ".jpeg")  # pictures that do not say their scale
_IMAGE_UM = (PIXEL_UM[0], 100.0)  # a whole slide fits in 600 pixels, as lowres images of Visium
_SCALES = {
    "mpp": "µm per unit",
    "pitch_um": "µm",
    "image_mpp": "µm per pixel",
    "outlines_mpp": "µm per unit",
}


@dataclass
class Options:
    """Arguments of :func:`~spatiagraph.data.read.read` beyond the path; see there.

    Raises:
        ValueError: A scale is not positive, or both ``mpp`` and ``pitch_um`` are given.
    """

    image: PathLike | bool | None = None
    mpp: float | None = None
    image_mpp: float | None = None
    origin_um: tuple[float, float] | None = None
    pitch_um: float | None = None
    spatial_key: str = keys.SPATIAL
    transcripts: PathLike | bool = True
    outlines: PathLike | bool | None = None
    outlines_mpp: float | None = None
    assume_um: bool = False
    x_key: str | None = None
    y_key: str | None = None
    counts_layer: str | None = None
    kind: Literal["genes", "protein", "types"] = "genes"
    transform: Literal["arcsinh", "clr", "none"] | None = None
    cofactor: float = 5.0
    type_key: str | None = None
    table: str | None = None
    drop_unplaced: bool = False
    markers: Sequence[str] | None = None
    swap_xy: bool = False
    sample_key: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("genes", "protein", "types"):
            raise ValueError(f'Expected kind "genes", "protein" or "types", got {self.kind!r}')
        for name, unit in _SCALES.items():
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:  # nor NaN
                raise ValueError(f"Expected {name!r} to be positive {unit}, got {value}")
        if self.mpp is not None and self.pitch_um is not None:
            raise ValueError(
                f"Expected either mpp or pitch_um, got mpp={self.mpp:g} and "
                f"pitch_um={self.pitch_um:g}: both give the scale of the coordinates"
            )


@dataclass
class Parts:
    """Pieces of a slide.

    Attributes:
        adata: Cells with ``obsm["spatial"]`` in µm.
        image: The image, if any.
        transcripts: Molecules, if any.
        outlines_file: Where outlines of its cells are, if the folder or notes name a file.
        known_um: The scale comes from the maker's metadata, so that it need not be guessed at.
        notes: How the slide was put together; kept in ``uns["spatiagraph"]["read"]``.
        warnings: What the user should hear of once the slide has passed its checks.
        slide_id: Name of the section, if the file knows it.
        donor: Where it comes from, if the file knows it.
        expression: What its values are, if the file knows it.
    """

    adata: AnnData
    image: SlideImage | None = None
    transcripts: pd.DataFrame | None = None
    outlines_file: OutlinesFile | None = None
    known_um: bool = False
    notes: dict[str, object] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    slide_id: str | None = None
    donor: str | None = None
    expression: Expression | None = None


def notes_of(adata: AnnData, options: Options) -> Mapping[str, Any]:
    """Notes of an earlier ``read`` of the slide, if its coordinates are selected.

    Raises:
        ValueError: There are, so that positions are µm, and they are to be scaled once more.
    """
    asked = options.spatial_key == keys.SPATIAL and options.x_key is None
    notes = our_notes(adata, "read") if asked else {}
    if notes and options.mpp not in (None, 1):
        scale = positive_number(notes, "mpp", "the notes of the slide")
        earlier = "" if scale is None else f" with mpp={scale:.6g}"
        raise ValueError(
            f"Expected no mpp for a slide that was read before{earlier} and whose positions are µm "
            f"since, got mpp={options.mpp:.6g}: leave it out"
        )
    return notes


def recall(parts: Parts, notes: Mapping[str, Any]) -> None:
    """Take name, donor and kind of values from notes; such a slide is in µm."""
    parts.known_um = True
    parts.notes = {k: v for k, v in notes.items() if not str(k).startswith(("image_", "outlines_"))}
    parts.slide_id = str(notes["slide_id"]) if "slide_id" in notes else None
    parts.donor = str(notes["donor"]) if "donor" in notes else None
    is_normalized = str(notes.get("expression")) == "normalized"
    parts.expression = "normalized" if is_normalized else "counts"


def crop(parts: Parts, box: tuple[float, float, float, float] | Literal["image"]) -> None:
    """Keep the cells and molecules of a part of the slide.

    Args:
        parts: The pieces of the slide, in µm.
        box: ``(x0, y0, x1, y1)``, or ``"image"`` for what the image shows.

    Raises:
        ValueError: There is no image, the box is none, or no cell lies in it.
    """
    if box == "image":
        if parts.image is None:
            raise ValueError('Expected an image for crop_um="image", got none: pass image=…')
        x0, y0, x1, y1 = parts.image.extent_um
    else:
        x0, y0, x1, y1 = box
    if not (np.isfinite([x0, y0, x1, y1]).all() and x0 < x1 and y0 < y1):
        raise ValueError(f"Expected crop_um as (x0, y0, x1, y1), x0 < x1 and y0 < y1, got {box}")
    low, high = (x0, y0), (x1, y1)
    pos = as_positions(parts.adata.obsm[keys.SPATIAL], f"obsm[{keys.SPATIAL!r}]")
    inside = np.asarray(((pos >= low) & (pos < high)).all(axis=1))
    if not inside.any():
        (left, top), (right, bottom) = pos.min(axis=0), pos.max(axis=0)
        raise ValueError(
            f"Expected cells in crop_um x {x0:.4g} to {x1:.4g}, y {y0:.4g} to {y1:.4g} µm, got "
            f"none of {len(pos)}, which span x {left:.4g} to {right:.4g}, y {top:.4g} to "
            f"{bottom:.4g} µm"
        )
    parts.adata = parts.adata[inside].copy()
    if parts.transcripts is not None:
        xy = parts.transcripts[["x_um", "y_um"]].to_numpy(np.float64)
        kept = np.flatnonzero(((xy >= low) & (xy < high)).all(axis=1))
        parts.transcripts = parts.transcripts.iloc[kept].reset_index(drop=True)
    parts.notes["crop_um"] = [float(v) for v in (x0, y0, x1, y1)]


def placed_only(adata: AnnData, options: Options, key: str = keys.SPATIAL) -> AnnData:
    """The cells that have a position, where the user wants to go on without the rest.

    Args:
        adata: The cells.
        options: What the user gave.
        key: Slot of ``obsm`` that holds the coordinates.
    """
    if not options.drop_unplaced or key not in adata.obsm:
        return adata
    pos = as_positions(adata.obsm[key], f"obsm[{key!r}]")
    there = np.asarray(np.isfinite(pos).all(axis=1))
    if not there.any():
        raise ValueError(
            f"Expected coordinates in obsm[{key!r}], got none for all of {len(there)} cells"
        )
    if there.all():
        return adata
    lost = adata.obs_names[~there]
    warnings.warn(
        f"Dropped {len(lost)} of {len(there)} cells that have no place: "
        f"{', '.join(map(repr, lost[:5]))}",
        stacklevel=5,
    )
    return adata[there].copy()


def find_scale(options: Options, adata: AnnData, pos: np.ndarray) -> Scale | None:
    """µm per unit of ``pos``, as the user gave it or else as the file says.

    Args:
        options: What the user gave.
        adata: The cells, with what is known of them.
        pos: Coordinates as they are in the file, ``[N, 2]``.

    Returns:
        ``None`` if neither says that they are anything but µm.

    Raises:
        ValueError: The points form no lattice, or the file says that they are no µm, and not what.
    """
    if options.pitch_um is not None:
        return Scale(scale_from_pitch(pos, options.pitch_um), "pitch_um")
    if options.mpp is not None:
        return Scale(options.mpp, "mpp")
    if options.assume_um or (found := declared_scale(adata, pos)) is None or found.mpp == 1.0:
        return None
    if found.mpp is None:
        raise ValueError(unknown_scale(found))
    return found


def image_scale(options: Options, stated: float | None, source: str) -> float | None:
    """µm per pixel of an image: as the user gave it, or else as is stated beside the image.

    Args:
        options: What the user gave; another scale than that which is stated is warned of.
        stated: µm per pixel that the folder or table states for it, if it does.
        source: Where, for the message.
    """
    if options.image_mpp is None:
        return stated
    warn_of_scales(options.image_mpp, stated, source)
    return options.image_mpp


def open_image(
    path: PathLike, mpp: float | None, origin_um: tuple[float, float] | None
) -> SlideImage:
    """Open an image file for :func:`~spatiagraph.data.read.read`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be decoded, or its pixel size is unknown.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"Expected an image at {path}, found no such file")
    if mpp is None and (path.suffix.lower() in _PLAIN or stored_mpp(path) is None):
        raise ValueError(
            f"Expected the pixel size of {path.name}, got none: pass image_mpp=… (µm per pixel of "
            "the image), or mpp=… if the coordinates are pixels of this image too"
        )
    return SlideImage.open(path, mpp=mpp, origin_um=origin_um or (0.0, 0.0))


def stored_mpp(path: Path) -> float | None:
    """µm per pixel that an image file says of itself; ``None`` if it does not, or is not there.

    Raises:
        ValueError: It cannot be decoded.
    """
    if not path.exists():
        return None
    with warnings.catch_warnings():  # said when it is opened
        warnings.simplefilter("ignore", UserWarning)
        opened = open_levels(path)
    opened.close()
    return opened.mpp


def reopen_image(notes: Mapping[str, Any], options: Options, name: str) -> SlideImage:
    """The image of a slide that was read before: the same channels, position and values in crops.

    Args:
        notes: What :func:`build` noted of the slide.
        options: Scale or place, to override those of the notes.
        name: Of the file with the notes, for messages.

    Raises:
        ValueError: The notes are not as they were written, or the image cannot be decoded.
    """
    where = f"uns[{keys.UNS!r}]['read'] of {name}"
    mpp = image_scale(options, positive_number(notes, "image_mpp", where), where)
    if mpp is None:
        raise ValueError(f"Expected 'image_mpp' in {where}, got none. Pass image_mpp=…")
    origin = np.asarray(notes.get("image_origin_um", (0.0, 0.0)))
    channels = np.asarray(notes.get("image_channels", np.zeros(0, int)))
    if origin.shape != (2,) or origin.dtype.kind not in "iuf":
        raise ValueError(f"Expected 'image_origin_um' in {where} as two numbers, got {origin}")
    if channels.ndim != 1 or channels.dtype.kind not in "iu":
        raise ValueError(f"Expected 'image_channels' in {where} as integers, got {channels}")
    values = notes.get("image_value_range")
    if values is not None and np.asarray(values).dtype.kind not in "iuf":
        raise ValueError(f"Expected 'image_value_range' in {where} as numbers, got {values!r}")
    with warnings.catch_warnings():
        if options.image_mpp is None:  # was said when the slide was read first
            warnings.filterwarnings("ignore", ".* says that pixels of the image", UserWarning)
        return SlideImage.open(
            str(notes["image_file"]),
            mpp=mpp,
            origin_um=options.origin_um or (float(origin[0]), float(origin[1])),
            channels=channels.tolist() or None,
            axes=None if (a := notes.get("image_axes")) is None else str(a),
            value_range=values,
        )


def image_notes(image: SlideImage) -> dict[str, Any]:
    """Notes by which :func:`reopen_image` has the same crops again.

    Args:
        image: The image.
    """
    notes: dict[str, Any] = {"image_value_range": image.value_range}
    if image.path is not None:
        notes |= {
            "image_file": str(image.path.resolve()),
            "image_mpp": image.mpp,
            "image_origin_um": [float(x) for x in image.origin_um],
            "image_channels": image.channels,
            "image_axes": image.axes,
        }
    return {name: value for name, value in notes.items() if value is not None}


def build(
    parts: Parts,
    *,
    slide_id: str,
    donor: str | None,
    expression: Expression,
    drop_empty: bool,
    assume_um: bool,
    pitch_um: float | None,
    one_section: bool = False,
    corners: pd.DataFrame | None = None,
) -> Slide:
    """Check the pieces and make the slide.

    Raises:
        ValueError: See :class:`~spatiagraph.data.slide.Slide`.
    """
    adata = parts.adata
    if drop_empty and adata.n_obs and adata.n_vars:
        counts = expression_matrix(adata)
        full = np.asarray((counts != 0).sum(axis=1)).ravel() > 0
        if not full.any():
            raise ValueError(
                f"Expected counts in {slide_id!r}, got none in all {len(full)} cells. Pass its "
                "image=… without drop_empty=True if it was only photographed"
            )
        if not full.all():
            warnings.warn(
                f"Dropped {int((~full).sum())} of {len(full)} cells of {slide_id!r} that have no "
                "counts",
                stacklevel=3,
            )
            adata = adata[full].copy()
    adata.uns[keys.UNS] = {**our_notes(adata), "read": parts.notes}  # it is in µm now
    outlines = None
    if corners is not None:
        outlines, line = place_outlines(corners, adata.obs_names, adata.obsm[keys.SPATIAL])
        parts.warnings += [] if line is None else [line]
    slide = Slide(
        adata,
        parts.image,
        parts.transcripts,
        outlines=outlines,
        slide_id=slide_id,
        donor=donor,
        expression=expression,
        assume_um=assume_um or parts.known_um,
        pitch_um=pitch_um,
        one_section=one_section,
    )
    if slide.transcripts is not None:
        line = check_own_molecules(slide.transcripts, slide.pos, slide.adata.obs_names)
        parts.warnings += [] if line is None else [line]
    if texts := make_values_writable(slide.adata):
        parts.warnings.append(f"No file can hold, and is text from now on: {'; '.join(texts)}")
    if parts.image is not None and (dark := parts.image.dark_channels()):
        parts.warnings.append(
            f"{len(dark)} of {parts.image.num_channels} channels of the image of {slide_id!r} show "
            f"next to nothing: {', '.join(dark[:8])}. Leave them out by image=SlideImage.open(…, "
            "channels=[…]), or confirm them by its value_range="
        )
    low, high = _IMAGE_UM
    if parts.image is not None and not low <= parts.image.mpp <= high:
        parts.warnings.append(
            f"Pixels of the image of {slide_id!r} are taken to be {parts.image.mpp:.4g} µm, and "
            f"those of pictures of slides are {low:g}–{high:g}: pass image_mpp=… for what is right"
        )
    for message in parts.warnings:
        warnings.warn(message, stacklevel=3)
    notes = parts.notes | {"slide_id": slide_id, "donor": donor, "expression": expression}
    if not slide.is_counted:
        notes[PHOTOGRAPHED] = True
    if parts.image is not None:
        notes |= image_notes(parts.image)
    if parts.outlines_file is not None and outlines is not None:
        notes |= parts.outlines_file.notes()
    notes = {k: v for k, v in notes.items() if v is not None}
    slide.adata.uns[keys.UNS] = {**slide.adata.uns[keys.UNS], "read": notes}
    return slide
