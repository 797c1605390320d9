"""Dispatch of files to their readers by content, and validation of the slide."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import pandas as pd
from anndata import AnnData

from spatiagraph._typed import typed
from spatiagraph.data.cohort.layout import is_cohort
from spatiagraph.data.image import SlideImage
from spatiagraph.data.places import IMAGES, KINDS, check_one_slide, unknown_folder
from spatiagraph.data.read.choose import choose, split_parts, split_sections
from spatiagraph.data.read.corners import OutlinesFile
from spatiagraph.data.read.cosmx import is_cosmx, load_cosmx
from spatiagraph.data.read.features import COFACTOR, Kind, Transform
from spatiagraph.data.read.h5ad import from_anndata, is_anndata, read_file
from spatiagraph.data.read.merscope import is_merscope, load_merscope
from spatiagraph.data.read.parts import Options, Parts, PathLike, build, crop
from spatiagraph.data.read.plain import is_table, load_table
from spatiagraph.data.read.sdata import is_spatialdata, load_spatialdata
from spatiagraph.data.read.spaceranger import is_spaceranger, load_spaceranger
from spatiagraph.data.read.structure import read_anndata
from spatiagraph.data.read.xenium import has_experiment, is_xenium, load_xenium
from spatiagraph.data.slide import Expression, Slide, default_slide_id

_FOLDERS: tuple[tuple[Callable[[Path], bool], Callable[[Path, Options], Parts]], ...] = (
    (is_spaceranger, load_spaceranger),
    (has_experiment, load_xenium),
    (is_merscope, load_merscope),
    (is_cosmx, load_cosmx),
    (is_xenium, load_xenium),  # by names that others may add to a folder, as transcripts.csv
)


_WAYS = {
    (".zip", ".tar", ".tgz", ".tar.gz", ".7z"): "It is packed: unpack it, and pass what is in it",
    (".gz", ".bz2", ".xz"): "It is packed: unpack it first, as by gunzip",
    (".rds", ".rdata", ".rda", ".qs"): "It is of R: write an .h5ad from it, as by zellkonverter",
    (".gef", ".gem", ".cellbin.gef"): "It is of Stereo-seq: write an .h5ad of it by stereopy",
    (".loom",): "Write an .h5ad from it: anndata.io.read_loom(…).write_h5ad(…)",
    (".xlsx", ".xls", ".ods"): "Save the sheet as .csv",
    (
        ".h5",
    ): "If it is a matrix of counts, pass the folder that also holds the places of its cells",
    IMAGES: "An image is passed as image=…, or alone to `spatiagraph embed`",
}
"""Endings of names → readers."""


@overload
def read(path: PathLike | AnnData, *, sample_key: str, **options: Any) -> list[Slide]: ...


@overload
def read(path: PathLike | AnnData, *, sample_key: None = None, **options: Any) -> Slide: ...


@typed  # type: ignore[misc]  # the two above take the options that are listed here
def read(
    path: PathLike | AnnData,
    *,
    image: PathLike | SlideImage | bool | None = None,
    mpp: float | None = None,
    origin_um: tuple[float, float] | None = None,
    pitch_um: float | None = None,
    assume_um: bool = False,
    slide_id: str | None = None,
    donor: str | None = None,
    expression: Expression | None = None,
    kind: Kind = "genes",
    transform: Transform | None = None,
    cofactor: float = COFACTOR,
    type_key: str | None = None,
    counts_layer: str | None = None,
    drop_empty: bool = False,
    drop_unplaced: bool = False,
    spatial_key: str = "spatial",
    x_key: str | None = None,
    y_key: str | None = None,
    swap_xy: bool = False,
    markers: Sequence[str] | None = None,
    sample_key: str | None = None,
    one_section: bool = False,
    table: str | None = None,
    image_mpp: float | None = None,
    transcripts: PathLike | bool = True,
    outlines: PathLike | bool | None = None,
    outlines_mpp: float | None = None,
    crop_um: tuple[float, float, float, float] | Literal["image"] | None = None,
) -> Slide | list[Slide]:
    """Read a slide, in µm, or with ``sample_key`` the slides of one file.

    ========================= ==================================================================
    ``path``                  scale of the coordinates
    ========================= ==================================================================
    ``.h5ad``, its ``.zarr``  what the file says, or ``mpp=``, or ``pitch_um=`` for spots; else µm
    Space Ranger folder       ``microns_per_pixel``, else the 100 µm pitch of the spots
    Xenium, MERSCOPE folder   µm already
    CosMx folder              pixels; ``fov_positions_file.csv`` tells their size, or ``mpp=``
    SpatialData ``.zarr``     as ``.h5ad``; the image through the store's transformations
    ========================= ==================================================================

    Args:
        path: File or folder, or an AnnData that is read as if it came from a file; table of cells
            with ``kind="types"``.
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
        kind: ``"genes"``; ``"protein"`` for intensities, which are transformed and fitted by a
            Gaussian; or ``"types"``, where types of cells are all that is known of them.
        transform: Of proteins: ``"arcsinh"``, the default, ``"clr"`` or ``"none"``; see
            :func:`~spatiagraph.data.read.features.protein_features`.
        cofactor: Of ``"arcsinh"``, in units of the intensities.
        type_key: Column of ``obs`` with the types, for ``kind="types"``.
        counts_layer: Layer that holds the counts, if not ``"counts"`` or else ``X``; ``"raw"`` is
            ``adata.raw``.
        drop_empty: Drop cells without counts, with a warning, instead of refusing them. A slide
            with an image on which nothing at all was counted is read as it is: it was only
            photographed.
        drop_unplaced: Drop cells without coordinates, with a warning, instead of refusing them.
        spatial_key: Slot of ``obsm`` that holds the coordinates.
        x_key: Column of ``obs`` with x, instead of ``spatial_key``.
        y_key: Column of ``obs`` with y.
        swap_xy: Take the first coordinate for y and the second for x.
        markers: Features to keep, all by default; of a table with ``kind="protein"``, the columns
            that are proteins.
        sample_key: Column of ``obs`` that names the section of each cell: a slide is made of each,
            called by its name, after ``slide_id`` if that is given.
        one_section: Take cells as one section even if they look like several over each other.
        table: Name of the table of a ``.zarr`` that has several.
        image_mpp: µm per pixel of the image. By default what ``uns["image"]`` or the scale
            factors say; else ``mpp``, the coordinates being pixels of this image; else the
            image's own metadata.
        transcripts: Molecule table (columns of Xenium, or x, y, gene) to go with an ``.h5ad``;
            ``False`` leaves out the one of a folder.
        outlines: Outlines of the cells: ``True`` for those of a Xenium, MERSCOPE or CosMx folder,
            or a file of one's own: GeoJSON, or a table of corners with ``cell_id``, ``x`` and
            ``y``. By default those of a slide that was written with them.
        outlines_mpp: µm per unit of the coordinates of a file of one's own; 1 if not given.
        crop_um: Part of the slide to keep, ``(x0, y0, x1, y1)`` in µm: its cells and molecules;
            ``"image"`` for what an image of a part of the slide shows.

    Returns:
        The slide, or with ``sample_key`` a list; ``adata.uns["spatiagraph"]["read"]`` says how it
        was put together. Written to an ``.h5ad`` and read again, it needs no arguments.

    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: It is of no known kind, a part is missing, or the slide does not pass its
            checks (see :class:`~spatiagraph.data.slide.Slide`).
        ImportError: A ``.zarr``, or the outlines of MERSCOPE, need the extra ``[io]``.
    """
    given = image if isinstance(image, SlideImage) else None
    if given is not None and (image_mpp is not None or origin_um is not None):
        raise ValueError(
            "Expected image_mpp and origin_um of the SlideImage that was given, got others beside "
            "it: pass mpp=… and origin_um=… to SlideImage.open"
        )
    if kind != "genes" and expression == "counts":
        raise ValueError(f"Expected expression='normalized' with kind={kind!r}, got 'counts'")
    for argument, given_as, needed in (
        ("transform", transform, "protein"),
        ("type_key", type_key, "types"),
    ):
        if given_as is not None and kind != needed:
            raise ValueError(
                f"Expected {argument}={given_as!r} with kind={needed!r}, got kind={kind!r}: leave "
                "it out"
            )
    options = Options(
        image=False if isinstance(image, SlideImage) else image,
        mpp=mpp,
        image_mpp=image_mpp,
        origin_um=origin_um,
        pitch_um=pitch_um,
        spatial_key=spatial_key,
        transcripts=transcripts,
        outlines=outlines,
        outlines_mpp=outlines_mpp,
        assume_um=assume_um,
        x_key=x_key,
        y_key=y_key,
        counts_layer=counts_layer,
        kind=kind,
        transform=transform,
        cofactor=cofactor,
        type_key=type_key,
        table=table,
        drop_unplaced=drop_unplaced,
        markers=markers,
        swap_xy=swap_xy,
        sample_key=sample_key,
    )
    name, whole = _open(path, options)
    source = None if isinstance(path, AnnData) else Path(path)
    slides = []
    corners: dict[OutlinesFile, pd.DataFrame] = {}
    for section, parts in _sections(whole, options, sample_key, source):
        if given is not None:
            parts.image = given
        asked = [k for k in ("image_mpp", "origin_um") if getattr(options, k) is not None]
        if asked and parts.image is None:
            raise ValueError(
                f"Expected an image for {' and '.join(asked)}, got none with {section or name}: "
                "pass its file as image=… (--image), or leave them out"
            )
        parts.notes["path"] = name if source is None else source.name
        if crop_um is not None:
            crop(parts, crop_um)
        parts.outlines_file = file = _outlines(parts, options, name)
        if file is not None and file not in corners:
            corners[file] = file.read()
        known = parts.slide_id or name
        if section is not None:
            known, parts.notes["sample_key"] = section, sample_key
        wanted = slide_id if section is None or slide_id is None else f"{slide_id}-{section}"
        slides.append(
            build(
                parts,
                slide_id=known if wanted is None else wanted,
                donor=donor or parts.donor,
                expression=expression or parts.expression or "counts",
                drop_empty=drop_empty,
                assume_um=assume_um,
                pitch_um=pitch_um,
                one_section=one_section,
                corners=None if file is None else corners[file],
            )
        )
    return slides[0] if sample_key is None else slides


def _outlines(parts: Parts, options: Options, name: str) -> OutlinesFile | None:
    """The file of outlines that is wanted.

    Raises:
        ValueError: There is none, or a scale is given for none of one's own.
    """
    asked = options.outlines
    if asked is None or isinstance(asked, bool):
        if options.outlines_mpp is not None:
            raise ValueError(
                "Expected a file of outlines for outlines_mpp, got none: pass it as outlines=…"
            )
        if asked is True and parts.outlines_file is None:
            raise ValueError(
                f"Expected outlines of cells with {name}, found none: pass their file as outlines=…"
            )
        return None if asked is False else parts.outlines_file
    return OutlinesFile(Path(asked), options.outlines_mpp or 1.0)


def _sections(
    whole: AnnData | Parts | list[tuple[str, Parts]],
    options: Options,
    sample_key: str | None,
    source: Path | None,
) -> Iterator[tuple[str | None, Parts]]:
    """The section, or the sections of which each has its name."""
    sections: Iterable[tuple[str | None, AnnData]]
    if isinstance(whole, list):
        yield from whole
        return
    if isinstance(whole, Parts):
        yield from [(None, whole)] if sample_key is None else split_parts(whole, sample_key)
        return
    adata, heard = choose(whole, options)
    sections = [(None, adata)] if sample_key is None else split_sections(adata, sample_key)
    for name, section in sections:
        parts = from_anndata(section, options, source)
        parts.warnings, heard = [*heard, *parts.warnings], []  # they are of the file: said once
        yield name, parts


def _open(
    path: PathLike | AnnData, options: Options
) -> tuple[str, AnnData | Parts | list[tuple[str, Parts]]]:
    """Name of a slide, and what a file or folder holds: a table to be placed, pieces, sections."""
    if isinstance(path, AnnData):
        return default_slide_id(path), path.to_memory() if path.isbacked else path
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"Expected {KINDS}, found nothing at {source}")
    if source.is_file():
        if options.table is not None:
            raise ValueError(
                f"Expected table={options.table!r} with a .zarr, got the file {source.name}: leave "
                "it out"
            )
        if source.suffix.lower() == ".h5ad" or is_anndata(source):
            return source.stem, read_file(source)
        if is_table(source):
            return source.name.split(".")[0], load_table(source, options)
        raise ValueError(f"Expected {KINDS}, got the file {source.name}{_way_from(source)}")
    folder = source / "outs" if (source / "outs").is_dir() else source
    name = folder.resolve().parent.name if folder.name == "outs" else folder.resolve().name
    if not isinstance(options.transcripts, bool):
        raise ValueError(
            f"Expected transcripts={options.transcripts} with an .h5ad, got the folder {folder}, "
            "which has its own: pass True or False"
        )
    if is_cohort(source):
        raise ValueError(
            f"Expected a slide, {source.name} is a cohort of slides: open it with "
            "spatiagraph.Cohort, and take a slide of it by its name"
        )
    if is_anndata(source):
        return source.resolve().stem, read_anndata(source)
    if is_spatialdata(source):
        return source.resolve().stem, load_spatialdata(source, options)
    check_one_slide(folder)
    for is_vendor, load in _FOLDERS:
        if is_vendor(folder):
            _check_for_tables(folder, options)
            return name, load(folder, options)
    raise ValueError(unknown_folder(folder))


def _way_from(file: Path) -> str:
    """What to do with a file of another kind, to be appended to a message."""
    name = file.name.lower()
    return next((f". {way}" for ends, way in _WAYS.items() if name.endswith(ends)), "")


def _check_for_tables(folder: Path, options: Options) -> None:
    """Refuse what chooses parts of an AnnData where a vendor's folder has but one of each."""
    default = Options()
    for name in ("counts_layer", "kind", "x_key", "y_key", "type_key", "table", "swap_xy"):
        if (value := getattr(options, name)) != getattr(default, name):
            raise ValueError(
                f"Expected {name}={value!r} with an .h5ad, a .zarr or an AnnData, got the folder "
                f"{folder.name}: leave it out"
            )
