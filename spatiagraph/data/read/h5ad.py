"""AnnData files, with what they say themselves about their image."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData, read_h5ad
from h5py import is_hdf5

from spatiagraph import keys
from spatiagraph._reasons import reason
from spatiagraph.data.axes import axis_pairs
from spatiagraph.data.checks import as_positions, check_positions, check_real, nearest
from spatiagraph.data.image import SlideImage
from spatiagraph.data.read.corners import OutlinesFile
from spatiagraph.data.read.molecules import read_any_molecules
from spatiagraph.data.read.parts import (
    Options,
    Parts,
    find_scale,
    image_scale,
    notes_of,
    open_image,
    recall,
    reopen_image,
)
from spatiagraph.data.read.structure import DAMAGED, check_structure, open_hdf5
from spatiagraph.data.read.tables import finite_number, positive_number, read_json
from spatiagraph.data.scale import doubts, libraries
from spatiagraph.data.sparse import settle

_MEND = "The file is damaged, incomplete or not of AnnData: copy it again"
_FACTORS = "scalefactors of uns['spatial']"


class DeclaredImage(NamedTuple):
    """Image that an AnnData names as a file of its own.

    Attributes:
        mpp: µm per pixel of the image, if known.
        origin_um: Corner of the first pixel in µm, if known.
    """

    mpp: float | None
    origin_um: tuple[float, float] | None


def from_anndata(adata: AnnData, options: Options, source: Path | None = None) -> Parts:
    """Bring the coordinates of an AnnData to µm, and find its image.

    Args:
        adata: Cells, as :func:`~spatiagraph.data.read.choose.choose` gives them; changed.
        options: Scale and image.
        source: File it comes from, if any; an image that was noted must lie beside it.

    Raises:
        ValueError: It has no coordinates, or their scale cannot be found.
    """
    pos = _positions(adata, options.spatial_key)
    molecules = None
    if not isinstance(options.transcripts, bool):
        molecules = read_any_molecules(Path(options.transcripts))
    previous = notes_of(adata, options)
    if options.mpp is None and options.pitch_um is None and previous:
        return _reopen(adata, molecules, previous, options, source)
    scale = find_scale(options, adata, pos)
    mpp = None if scale is None else scale.mpp
    adata.obsm[keys.SPATIAL] = pos if mpp is None else pos * mpp
    image, image_from, warning = _image(adata, mpp, options)
    if mpp is not None:
        _rescale_embedded(adata, mpp)
    return Parts(
        adata,
        image,
        molecules,
        known_um=scale is not None and scale.is_sure,
        notes={
            "format": "h5ad",
            "spatial_key": options.spatial_key,
            "kind": options.kind,
            "mpp": mpp,
            "mpp_from": None if scale is None else scale.source,
            "image": image_from,
            "image_mpp": None if image is None else image.mpp,
        },
        warnings=[*([] if warning is None else [warning]), *doubts(adata, pos, scale)],
        expression=None if options.kind == "genes" else "normalized",
    )


def _reopen(
    adata: AnnData,
    molecules: pd.DataFrame | None,
    notes: Mapping[str, Any],
    options: Options,
    source: Path | None,
) -> Parts:
    """A slide that was read before and written with its results: in µm, its image where it was.

    The image is opened by itself only where it lies beside the file: a file from somebody else
    could name any picture of this machine.
    """
    adata.obsm[keys.SPATIAL] = as_positions(adata.obsm[keys.SPATIAL], f"obsm[{keys.SPATIAL!r}]")
    name = "a file of this slide" if source is None else source.name
    heard: list[str] = []
    noted = Path(str(notes["image_file"])) if "image_file" in notes else None
    image: SlideImage | None = None
    if options.image in (None, True) and noted is not None:
        if not noted.exists():
            heard.append(f"The image of the slide is no longer at {noted}: pass image=…")
        elif source is None or not is_beside(noted, source):
            heard.append(
                f"The image of the slide, {noted}, is not used: it does not lie beside "
                f"{name}. Pass image=… (--image) to use it"
            )
        else:
            image = reopen_image(notes, options, name)
    elif isinstance(options.image, bool | None):
        image, _, warning = _image(adata, 1.0, options)
        heard += [] if warning is None else [warning]
    elif noted is not None and noted.name == Path(options.image).name:
        image = reopen_image({**notes, "image_file": options.image}, options, name)
    else:
        file = Path(options.image)
        place = declared_image(adata, file.name, 1.0)
        mpp = image_scale(options, place.mpp, name)
        image = open_image(file, mpp, options.origin_um or place.origin_um)
    parts = Parts(adata, image, molecules, warnings=heard)
    recall(parts, notes)
    if "outlines_file" in notes and options.outlines in (None, True):
        noted = Path(str(notes["outlines_file"]))
        mpp = positive_number(notes, "outlines_mpp", f"uns[{keys.UNS!r}]['read'] of {name}") or 1.0
        if not noted.exists():
            heard.append(f"The outlines of the slide are no longer at {noted}: pass outlines=…")
        elif source is None or not is_beside(noted, source):
            heard.append(
                f"The outlines of the slide, {noted}, are not used: they do not lie beside "
                f"{name}. Pass outlines=… (--outlines) to use them"
            )
        else:
            parts.outlines_file = OutlinesFile(noted, mpp)
    return parts


def is_beside(file: Path, other: Path) -> bool:
    """Check that a file lies in the folder of another or below it, links followed.

    Args:
        file: The file, which need not exist.
        other: The file beside which it is to lie.
    """
    return file.resolve().is_relative_to(other.resolve().parent)


def declared_image(adata: AnnData, file: str, mpp: float | None) -> DeclaredImage:
    """Scale and position of an image file, from what the AnnData says of it.

    Understood are ``uns["image"]`` with ``pixel_size_um``, ``origin_x_um``, ``origin_y_um``, or
    with ``scale``, pixels of the image per unit of the coordinates (0.5: an image at half size);
    and scanpy's ``uns["spatial"]`` for files called ``…hires…`` or ``…lowres…``.

    Args:
        adata: The cells.
        file: Name of the image file; an entry that names another file says nothing about it.
        mpp: µm per unit of the coordinates, if known.
    """
    if mpp is not None and len(found := libraries(adata)) == 1:
        (library,) = found.values()
        for kind in ("hires", "lowres"):
            if kind in file.lower():
                scale = positive_number(library["scalefactors"], f"tissue_{kind}_scalef", _FACTORS)
                if scale is not None:
                    return DeclaredImage(mpp / scale, None)
    entry = adata.uns.get("image")
    if not isinstance(entry, Mapping) or str(entry.get("file", file)) != file:
        return DeclaredImage(None, None)
    origin = None
    if "origin_x_um" in entry and "origin_y_um" in entry:
        x, y = (finite_number(entry, f"origin_{axis}_um", "uns['image']") for axis in "xy")
        origin = (x, y)
    size = positive_number(entry, "pixel_size_um", "uns['image']")
    if size is not None:
        return DeclaredImage(size, origin)
    scale = positive_number(entry, "scale", "uns['image']")
    if scale is not None and mpp is not None:
        return DeclaredImage(mpp / scale, origin)
    return DeclaredImage(None, origin)


def is_anndata(path: Path) -> bool:
    """Check that a file of HDF5 or a store of Zarr says of itself that it is an AnnData."""
    if path.is_file():
        if path.suffix.lower() not in (".h5", ".hdf5", ".h5ad") or not is_hdf5(path):
            return False
        with open_hdf5(path, _MEND) as file:
            return {"obs", "var"} <= set(file.names())
    for mark in ("zarr.json", ".zattrs"):
        if (path / mark).is_file():
            found = read_json(path / mark)
            return found.get("attributes", found).get("encoding-type") == "anndata"
    return False


def read_file(path: Path) -> AnnData:
    """Open an ``.h5ad`` file.

    Raises:
        ValueError: It is no AnnData, is damaged, or was written in a form that is not known here.
    """
    with open_hdf5(path, _MEND) as file:
        groups = set(file.names())
        if {"obs", "var"} <= groups:
            check_structure(file.item, path.name)
    if {"obs", "var"} <= groups:
        try:
            with warnings.catch_warnings():  # refused in a moment, with the names
                warnings.filterwarnings("ignore", message=".* names are not unique")
                adata = read_h5ad(path)
        except DAMAGED as err:  # its structure is right: values that cannot be decoded
            raise ValueError(
                f"Expected a readable AnnData file, got {path.name}: {reason(err)}. {_MEND}"
            ) from err
        settle(adata, path.name)
        return adata
    hint = (
        ". It is a 10x feature matrix: pass the folder that also holds spatial/"
        if "matrix" in groups
        else f" and {', '.join(sorted(groups)) or 'nothing'} instead"
    )
    raise ValueError(f"Expected obs and var in {path.name}, found no AnnData{hint}")


def _positions(adata: AnnData, key: str) -> np.ndarray:
    if key not in adata.obsm:
        pairs = axis_pairs(adata.obs.columns)
        if not (pairs or len(adata.obsm)) and (turned := axis_pairs(adata.var.columns)):
            raise ValueError(
                f"Expected a row for each cell, got places in var[{turned[0].x!r}] and "
                f"var[{turned[0].y!r}]: is it genes × cells? Transpose it, by adata.T, and pass "
                f"x_key={turned[0].x!r} and y_key={turned[0].y!r}"
            )
        ways = [f"spatial_key={k!r}" for k in list(adata.obsm)[:1] if "spatial" in k.lower()]
        ways += [f"x_key={pair.x!r} and y_key={pair.y!r}" for pair in pairs[:2]]
        raise ValueError(
            f"Expected coordinates in obsm[{key!r}], got none. {nearest(key, list(adata.obsm))}. "
            f"Pass {' or '.join(ways) or 'spatial_key=…, or x_key=… and y_key=… for obs'}"
        )
    pos = as_positions(adata.obsm[key], f"obsm[{key!r}]")
    check_positions(pos, adata.obs_names)
    return pos


def _image(
    adata: AnnData, mpp: float | None, options: Options
) -> tuple[SlideImage | None, str | None, str | None]:
    """The image, where its scale comes from, and a warning."""
    if options.image is False:
        return None, None, None
    if options.image is None or options.image is True:
        return _embedded(adata, mpp, options)
    path = Path(options.image)
    declared = declared_image(adata, path.name, mpp)
    image_mpp = image_scale(options, declared.mpp, "The table of cells") or mpp
    source = "image_mpp" if options.image_mpp else "the h5ad" if declared.mpp else "mpp"
    origin = options.origin_um if options.origin_um is not None else declared.origin_um
    return open_image(path, image_mpp, origin), f"{path.name}, scale from {source}", None


def _embedded(
    adata: AnnData, mpp: float | None, options: Options
) -> tuple[SlideImage | None, str | None, str | None]:
    """The finest image that scanpy's layout keeps inside of the file."""
    with_images = {k: v for k, v in libraries(adata).items() if v.get("images")}
    if not with_images:
        if options.image is True:
            raise ValueError(
                "Expected an image in uns['spatial'][library]['images'], got none. Pass its file: "
                "image='…'"
            )
        return None, None, None
    if len(with_images) > 1:
        raise ValueError(
            f"Expected one library with images in uns['spatial'], got {len(with_images)}: "
            f"{', '.join(map(repr, with_images))}. Pass sample_key=… (the column of obs that "
            "names them) for a slide of each, or image=False to go without"
        )
    (name, library), *_ = with_images.items()
    found = {
        kind: positive_number(library["scalefactors"], f"tissue_{kind}_scalef", _FACTORS)
        for kind in library["images"]
    }
    sizes = {kind: size for kind, size in found.items() if size is not None}
    if mpp is None and options.image_mpp is None or not sizes:
        return (
            None,
            None,
            (
                f"The image in uns['spatial'][{name!r}] is not used: its scale is not known. Pass "
                "mpp=… or pitch_um=… if the coordinates are pixels, image_mpp=… (µm per pixel of "
                "the image), or image=False"
            ),
        )
    kind = max(sizes, key=lambda k: sizes[k])
    where = f"uns['spatial'][{name!r}]['images'][{kind!r}]"
    pixels = np.asarray(library["images"][kind])
    check_real(pixels.dtype, where)
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise ValueError(
            f"Expected an image of shape [H, W] or [H, W, C] in {where}, got {list(pixels.shape)}. "
            "Write it again, or pass image=False"
        )
    image_mpp = image_scale(options, None if mpp is None else mpp / sizes[kind], where)
    assert image_mpp is not None  # one of both is known
    image = SlideImage(
        [pixels],
        mpp=image_mpp,
        origin_um=options.origin_um or (0.0, 0.0),
        value_range=(0.0, 1.0) if pixels.dtype.kind == "f" and pixels.max() <= 1 else None,
    )
    return image, where, None


def _rescale_embedded(adata: AnnData, mpp: float) -> None:
    """Scale factors per µm instead of per pixel, so that scanpy and squidpy still plot."""
    found = libraries(adata)
    if not found:
        return
    rescaled = dict(adata.uns["spatial"])
    for name, library in found.items():
        factors = {
            k: value / mpp if k.endswith("_scalef") else value * mpp
            for k in library["scalefactors"]
            if k.endswith(("_scalef", "_fullres"))
            and (value := positive_number(library["scalefactors"], k, _FACTORS)) is not None
        }
        rescaled[name] = {**library, "scalefactors": {**library["scalefactors"], **factors}}
    adata.uns["spatial"] = rescaled
