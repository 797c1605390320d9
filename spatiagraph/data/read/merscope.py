"""MERSCOPE folders, and those of Vizgen's post-processing: µm, with mosaics placed by a matrix."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from spatiagraph._files import check_file
from spatiagraph._reasons import reason
from spatiagraph.data.checks import check_names
from spatiagraph.data.image import SlideImage
from spatiagraph.data.read.controls import split_controls
from spatiagraph.data.read.corners import OutlinesFile
from spatiagraph.data.read.molecules import (
    MERSCOPE,
    as_text,
    count_molecules,
    num_controls,
    read_molecules,
)
from spatiagraph.data.read.outlines import (
    cells_of_molecules,
    find_outlines,
    outline_centroids,
    read_outlines,
)
from spatiagraph.data.read.parts import Options, Parts, image_scale, open_image
from spatiagraph.data.read.tables import (
    find_table,
    listed,
    place_cells,
    read_counts,
    read_table,
    table_columns,
)

_COUNTS, _CELLS, _MOLECULES = "*cell_by_gene", "*cell_metadata", "*detected_transcripts"
_IDS = ("cell", "EntityID", "Unnamed: 0")  # of old and new versions; the first column of all
_CENTRE = ("center_x", "center_y")
_MATRIX = "micron_to_mosaic_pixel_transform.csv"
_PLANE = re.compile(r"_z(\d{1,4})$")  # how the name of a mosaic ends


@dataclass(frozen=True)
class Mosaic:
    """Position of the mosaic.

    Attributes:
        mpp: µm per pixel.
        origin_um: Corner of the first pixel in µm.
    """

    mpp: float
    origin_um: tuple[float, float]


def is_merscope(folder: Path) -> bool:
    """Check that a folder looks like MERSCOPE output, complete or not."""
    if (folder / "images" / _MATRIX).exists():
        return True
    for stem, mark in ((_COUNTS, None), (_MOLECULES, "global_x")):
        table = find_table(folder, stem)
        if table is not None and (mark is None or mark in table_columns(table)):
            return True
    return False


def load_merscope(folder: Path, options: Options) -> Parts:
    """Read a MERSCOPE folder.

    Counts come from ``cell_by_gene.csv``, centres from ``cell_metadata.csv``. Where either is
    missing, outlines (``cell_boundaries``, or the parquet file of the post-processing tool) say
    which molecules are in which cell, and where cells lie; outlines need ``[io]``. The image is
    the DAPI mosaic of the middle plane, placed by ``micron_to_mosaic_pixel_transform.csv``.

    Args:
        folder: The folder with ``cell_by_gene.csv`` or ``detected_transcripts.csv``.
        options: ``image``: the file of another mosaic, or the name of a stain; its scale.

    Raises:
        ValueError: A file is missing, damaged or belongs to other cells; names it.
        ImportError: Outlines are needed and ``[io]`` is not installed.
    """
    if options.pitch_um is not None or options.mpp is not None:
        raise ValueError("Expected no mpp or pitch_um: the coordinates of MERSCOPE are µm")
    counts, cells = find_table(folder, _COUNTS), find_table(folder, _CELLS)
    table = find_table(folder, _MOLECULES)
    molecules = None
    if table is not None and (options.transcripts is not False or counts is None):
        molecules = read_molecules(table, MERSCOPE)
    outlines, file = None, None
    if cells is None or (counts is None and molecules is not None and "cell_id" not in molecules):
        file = find_outlines(folder)
        outlines = None if file is None else read_outlines(file)
    if molecules is not None and outlines is not None and "cell_id" not in molecules:
        molecules["cell_id"] = cells_of_molecules(molecules, outlines)
    if counts is not None:
        adata, controls = _read_counts(counts)
        source = counts.name
    elif table is not None and molecules is not None and "cell_id" in molecules:
        adata, controls = count_molecules(molecules), num_controls(molecules)
        source = table.name if file is None else f"{table.name} inside of {file.name}"
    else:
        raise ValueError(
            f"Expected cell_by_gene.csv in {folder.name}, or detected_transcripts.csv with cell_id "
            "or outlines of the cells (cell_boundaries); found neither. Copy one of them from the "
            "instrument's output"
        )
    if cells is not None:
        adata = _place(adata, cells, source, options.drop_unplaced)
    elif outlines is not None and file is not None:
        centroids = outline_centroids(outlines)
        if counts is None:  # a cell without a molecule has an outline all the same
            centroids = centroids[centroids.index.isin(adata.obs_names)]
        adata, _ = place_cells(
            adata,
            centroids,
            ("x", "y"),
            file.name,
            source,
            drop_unplaced=options.drop_unplaced,
        )
    elif counts is not None:
        raise ValueError(
            f"Expected cell_metadata.csv or outlines of the cells (a parquet file with EntityID "
            f"and Geometry, or cell_boundaries) in {folder.name}, found neither: without them the "
            f"cells of {counts.name} cannot be placed"
        )
    image, name = _image(folder, options)
    file = find_outlines(folder) if options.outlines is True else None
    return Parts(
        adata,
        image,
        molecules if options.transcripts is not False else None,
        outlines_file=None if file is None else OutlinesFile(file),
        known_um=True,
        notes={"format": "merscope", "counts": source, "controls": controls, "image": name},
    )


def _read_counts(path: Path) -> tuple[AnnData, int]:
    columns = table_columns(path)
    if columns[0] not in _IDS:
        raise ValueError(
            f"Expected the ids of cells in the first column of {path.name} (one of "
            f"{', '.join(_IDS)}), got {columns[0]!r}"
        )
    ids, adata = read_counts(path, _IDS)
    names = pd.Index(as_text(ids[columns[0]]))
    check_names(names, f"cell ids in {path.name}", "Are two files joined in it?")
    adata.obs_names = names
    return split_controls(adata)


def _place(adata: AnnData, cells: Path, counts: str, drop_unplaced: bool) -> AnnData:
    table = read_table(cells, needed=_CENTRE)
    ids = next((c for c in reversed(_IDS) if c in table), table.columns[0])
    for other in (c for c in _IDS if c in table):  # an index may stand beside the ids
        if as_text(table[other]).isin(adata.obs_names).any():
            ids = other
    table = table.set_index(as_text(table.pop(ids)).to_numpy())
    adata, table = place_cells(
        adata, table, _CENTRE, cells.name, counts, drop_unplaced=drop_unplaced
    )
    adata.obs = adata.obs.join(table.drop(columns=[*_CENTRE, *_IDS], errors="ignore"))
    return adata


def read_mosaic(folder: Path) -> Mosaic:
    """Scale and position of the mosaics, from the matrix that brings µm to pixels.

    Args:
        folder: The folder ``images``.

    Raises:
        ValueError: The file is missing or damaged, or the matrix turns or shears.
    """
    path = folder / _MATRIX
    if not path.exists():
        raise ValueError(
            f"Expected {_MATRIX} in {folder}, found none: without it the mosaics cannot be placed. "
            "Pass image=False to go without, or image_mpp=… and origin_um=…"
        )
    check_file(path, "a 3 × 3 matrix")
    try:
        matrix = pd.read_csv(path, sep=r"\s+", header=None, dtype=np.float64).to_numpy()
    except (ValueError, OSError) as err:
        raise ValueError(f"Expected a 3 × 3 matrix in {path.name}, got {reason(err)}") from err
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise ValueError(
            f"Expected a 3 × 3 matrix of numbers in {path.name}, got shape {list(matrix.shape)}"
        )
    scale, shift = np.diag(matrix)[:2], matrix[:2, 2]
    turn = np.abs([matrix[0, 1], matrix[1, 0]]).max()
    if (scale <= 0).any() or turn > 1e-3 * scale[0] or abs(scale[0] / scale[1] - 1) > 0.01:
        raise ValueError(
            f"Expected {path.name} to scale and shift, got a rotation, reflection or shear: "
            f"{matrix[:2].round(4).tolist()}. Pass image=False to go without"
        )
    origin = -shift / scale
    return Mosaic(float(1 / scale.mean()), (float(origin[0]), float(origin[1])))


def _image(folder: Path, options: Options) -> tuple[SlideImage | None, str | None]:
    if options.image is False:
        return None, None
    images = folder / "images"
    asked = options.image
    if asked is None or asked is True or (found := Path(asked)).suffix == "":
        stain = "DAPI" if asked is None or asked is True else str(asked)
        mosaics = [(_PLANE.search(p.stem), p) for p in listed(images, f"mosaic_{stain}_z*.tif")]
        planes = [path for _, path in sorted((int(z[1]), path) for z, path in mosaics if z)]
        if not planes:
            if asked is None:
                return None, None
            have = {p.stem.split("_")[1] for p in listed(images, "mosaic_*_z*.tif")}
            raise FileNotFoundError(
                f"Expected mosaic_{stain}_z*.tif in {images}, got stains "
                f"{', '.join(sorted(have)) or 'none'}"
            )
        found = planes[len(planes) // 2]
    has_matrix = (images / _MATRIX).exists()
    if options.image_mpp is not None and (options.origin_um is not None or not has_matrix):
        return open_image(found, options.image_mpp, options.origin_um), found.name
    mosaic = read_mosaic(images)
    mpp = image_scale(options, mosaic.mpp, _MATRIX)
    return open_image(found, mpp, options.origin_um or mosaic.origin_um), found.name
