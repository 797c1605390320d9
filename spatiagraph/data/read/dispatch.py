"""One door for all files: look at what is there, hand it to its reader, check the slide."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from spatiagraph.data.image import SlideImage
from spatiagraph.data.read.cosmx import is_cosmx, load_cosmx
from spatiagraph.data.read.h5ad import load_h5ad
from spatiagraph.data.read.merscope import is_merscope, load_merscope
from spatiagraph.data.read.parts import Options, Parts, PathLike, build, crop
from spatiagraph.data.read.sdata import is_spatialdata, load_spatialdata
from spatiagraph.data.read.spaceranger import is_spaceranger, load_spaceranger
from spatiagraph.data.read.tables import listed
from spatiagraph.data.read.xenium import is_xenium, load_xenium
from spatiagraph.data.slide import Expression, Slide

_KINDS = (
    "an .h5ad file, a SpatialData .zarr, or a folder of Space Ranger (with spatial/), Xenium "
    "(experiment.xenium), MERSCOPE (cell_by_gene.csv) or CosMx (*exprMat_file.csv)"
)
_FOLDERS: tuple[tuple[Callable[[Path], bool], Callable[[Path, Options], Parts]], ...] = (
    (is_spaceranger, load_spaceranger),
    (is_xenium, load_xenium),
    (is_merscope, load_merscope),
    (is_cosmx, load_cosmx),
)


def read(
    path: PathLike,
    *,
    image: PathLike | SlideImage | bool | None = None,
    mpp: float | None = None,
    origin_um: tuple[float, float] | None = None,
    pitch_um: float | None = None,
    assume_um: bool = False,
    slide_id: str | None = None,
    donor: str | None = None,
    expression: Expression | None = None,
    drop_empty: bool = False,
    spatial_key: str = "spatial",
    image_mpp: float | None = None,
    transcripts: PathLike | bool = True,
    table: str | None = None,
    drop_unplaced: bool = False,
    crop_um: tuple[float, float, float, float] | Literal["image"] | None = None,
) -> Slide:
    """Read a slide, in µm.

    ========================= ==================================================================
    ``path``                  scale of the coordinates
    ========================= ==================================================================
    ``.h5ad``                 what the file says, or ``mpp=``, or ``pitch_um=`` for spots; else µm
    Space Ranger folder       ``microns_per_pixel``, else the 100 µm pitch of the spots
    Xenium, MERSCOPE folder   µm already
    CosMx folder              pixels; ``fov_positions_file.csv`` tells their size, or ``mpp=``
    SpatialData ``.zarr``     as ``.h5ad``; the image through the store's transformations
    ========================= ==================================================================

    Args:
        path: File or folder.
        image: Image file; for a ``.zarr``, the name of the image element; for MERSCOPE, that of a
            stain. By default what the folder or file itself holds; ``False`` goes without. A
            :class:`~spatiagraph.SlideImage` is taken as it is, to choose channels, axes or values.
        mpp: µm per unit of the coordinates (full-resolution pixels, for Space Ranger).
        origin_um: x and y of the image's first pixel corner in µm; (0, 0) unless the file says.
        pitch_um: Distance of neighbouring spots in µm, instead of ``mpp``: 100 for Visium, 200
            for ST.
        assume_um: Take the coordinates as µm however unlikely they look.
        slide_id: Name of the section; by default that of the file or folder.
        donor: The person or animal it comes from.
        expression: ``"counts"``, the default, or ``"normalized"`` to accept fractions as they are.
        drop_empty: Drop cells without counts, with a warning, instead of refusing them.
        spatial_key: Slot of ``obsm`` that holds the coordinates.
        image_mpp: µm per pixel of the image. By default what ``uns["image"]`` or the scale
            factors say; else ``mpp``, the coordinates being pixels of this image; else the
            image's own metadata.
        transcripts: Molecule table (columns of Xenium, or x, y, gene) to go with an ``.h5ad``;
            ``False`` leaves out the one of a folder.
        table: Table of a ``.zarr`` that has several, as Visium HD has one for each size of bins.
        drop_unplaced: Drop cells that were counted and have no place, with a warning, instead of
            refusing them.
        crop_um: Part of the slide to keep, ``(x0, y0, x1, y1)`` in µm: its cells and molecules;
            ``"image"`` for what an image of a part of the slide shows.

    Returns:
        The slide; ``adata.uns["spatiagraph"]["read"]`` says how it was put together. Written to
        an ``.h5ad`` and read again, it needs no arguments.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: It is of no known kind, a part is missing, or the slide does not pass its
            checks (see :class:`~spatiagraph.data.slide.Slide`).
        ImportError: A ``.zarr``, or the outlines of MERSCOPE, need the extra ``[io]``.
    """
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"Expected {_KINDS}, found nothing at {source}")
    given = image if isinstance(image, SlideImage) else None
    if given is not None and (image_mpp is not None or origin_um is not None):
        raise ValueError(
            "Expected image_mpp and origin_um of the SlideImage that was given, got others beside "
            "it: pass mpp=… and origin_um=… to SlideImage.open"
        )
    wanted = image if not isinstance(image, SlideImage) else False
    options = Options(
        wanted,
        mpp,
        image_mpp,
        origin_um,
        pitch_um,
        spatial_key,
        transcripts,
        assume_um,
        table,
        drop_unplaced,
    )
    name, parts = _load(source, options)
    if given is not None:
        parts.image = given
    parts.notes["path"] = source.name
    if crop_um is not None:
        crop(parts, crop_um)
    return build(
        parts,
        slide_id=slide_id if slide_id is not None else parts.slide_id or name,
        donor=donor or parts.donor,
        expression=expression or parts.expression or "counts",
        drop_empty=drop_empty,
        assume_um=assume_um,
        pitch_um=pitch_um,
    )


def _load(source: Path, options: Options) -> tuple[str, Parts]:
    if source.is_file():
        if source.suffix == ".h5ad":
            return source.stem, load_h5ad(source, options)
        raise ValueError(f"Expected {_KINDS}, got the file {source.name}")
    folder = source / "outs" if (source / "outs").is_dir() else source
    name = folder.resolve().parent.name if folder.name == "outs" else folder.resolve().name
    if not isinstance(options.transcripts, bool):
        raise ValueError(
            f"Expected transcripts={options.transcripts} with an .h5ad, got the folder {folder}, "
            "which has its own: pass True or False"
        )
    if is_spatialdata(source):
        return source.resolve().stem, load_spatialdata(source, options)
    if options.table is not None:
        raise ValueError(f"Expected table=… with a SpatialData .zarr, got the folder {folder}")
    for is_vendor, load in _FOLDERS:
        if is_vendor(folder):
            return name, load(folder, options)
    raise ValueError(_unknown(folder))


def _unknown(folder: Path) -> str:
    inside = [*listed(folder, "*"), *listed(folder, "binned_outputs/*")]
    readable = [str(p.relative_to(folder)) for p in inside if p.suffix == ".h5ad" or _is_slide(p)]
    if readable:
        names = ", ".join(readable[:12])
        where = folder.name or folder
        return f"Expected one slide, got the folder {where} with {names}. Pass one of them"
    found = ", ".join([p.name for p in listed(folder, "*")][:8])
    if any((folder / mark).exists() for mark in ("scalefactors_json.json", "tissue_positions.csv")):
        mend = "It has spots but no counts: filtered_feature_bc_matrix and spatial/ are missing"
    elif any("transcript" in p.name for p in inside):
        mend = (
            "Its transcripts are of no vendor that is known: count them with "
            "spatiagraph.data.transcripts.counts_from_transcripts and write an .h5ad"
        )
    else:
        mend = "Pass the folder or file that holds counts and coordinates"
    return f"Expected {_KINDS}, got {folder} with {found or 'nothing in it'}. {mend}"


def _is_slide(path: Path) -> bool:
    """Whether a folder inside of a folder could be read."""
    if not path.is_dir():
        return False
    kinds = (is_spatialdata, *(is_vendor for is_vendor, _ in _FOLDERS))
    return any(is_kind(place) for place in (path, path / "outs") for is_kind in kinds)
