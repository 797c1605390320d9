"""CosMx folders. Coordinates are pixels, whose size depends on the instrument."""

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.spatial import cKDTree

from spatiagraph import keys
from spatiagraph.data.checks import check_names
from spatiagraph.data.image import SlideImage
from spatiagraph.data.read.controls import split_controls
from spatiagraph.data.read.molecules import (
    COSMX,
    as_text,
    count_molecules,
    num_controls,
    read_molecules,
)
from spatiagraph.data.read.parts import Options, Parts, open_image
from spatiagraph.data.read.tables import (
    find_table,
    numbers,
    read_counts,
    read_table,
    rows_of,
    table_columns,
)

MPP = 0.120280945
"""µm per pixel of the instruments that are sold; a field of view has 4256 × 4256 pixels."""
MPP_PROTOTYPE = 0.18
"""µm per pixel of the prototype that made the first public lung data; 5472 × 3648 pixels."""

_FIELDS = {4256: MPP, 3648: MPP_PROTOTYPE, 5472: MPP_PROTOTYPE}  # side in pixels → µm per pixel
_COUNTS, _CELLS, _MOLECULES, _POSITIONS = (
    f"*{stem}" for stem in ("exprMat_file", "metadata_file", "tx_file", "fov_positions_file")
)
_CENTRE = ("CenterX_global_px", "CenterY_global_px")
_MATES = (  # the same columns in px and in mm, in old and new versions
    ("x_global_px", "x_global_mm"),
    ("y_global_px", "y_global_mm"),
    ("x_global_px", "X_mm"),
    ("y_global_px", "Y_mm"),
)


def is_cosmx(folder: Path) -> bool:
    """Whether a folder looks like CosMx flat files, complete or not."""
    return any(
        (table := find_table(folder, stem)) is not None and mark in table_columns(table)
        for stem, mark in (
            (_COUNTS, "cell_ID"),
            (_CELLS, _CENTRE[0]),
            (_MOLECULES, "target"),
        )
    )


def load_cosmx(folder: Path, options: Options) -> Parts:
    """Read a folder of CosMx flat files.

    Counts come from ``exprMat_file.csv`` with the centres of ``metadata_file.csv``; where both are
    missing, they are counted from ``tx_file.csv``, a cell lying at the mean of its molecules.
    Cells are called ``{cell_ID}_{fov}``, as squidpy and spatialdata-io do. The instrument's images
    are one file per field of view and upside down against its coordinates: stitch and flip them,
    then pass ``image=`` with ``image_mpp=`` and ``origin_um=``.

    Args:
        folder: The folder with the csv files.
        options: ``mpp``, if ``fov_positions_file.csv`` does not tell the pixel size; the image.

    Raises:
        ValueError: The pixel size is not known, or a file is missing, damaged or belongs to other
            cells; names it.
    """
    if options.pitch_um is not None:
        raise ValueError("Expected no pitch_um: CosMx has no lattice. Its scale is mpp=…")
    if options.image is True:
        raise FileNotFoundError(
            "Expected one image of the section: CosMx has one for each field of view. Stitch them, "
            "flip the result upside down, and pass its file with image_mpp=… and origin_um=…"
        )
    mpp, source = _scale(folder, options)
    counts, cells = find_table(folder, _COUNTS), find_table(folder, _CELLS)
    table = find_table(folder, _MOLECULES)
    molecules = None
    if table is not None and (options.transcripts is not False or counts is None):
        molecules = _read_molecules(table, mpp)
    if counts is not None and cells is not None:
        (adata, controls), of = _from_matrix(counts, cells, mpp), counts.name
    elif counts is None and cells is None and table is not None and molecules is not None:
        adata, controls, of = count_molecules(molecules), num_controls(molecules), table.name
    else:
        raise ValueError(
            f"Expected {_COUNTS}.csv with {_CELLS}.csv, or {_MOLECULES}.csv alone, in "
            f"{folder.name}, got {', '.join(p.name for p in (counts, cells, table) if p)}. Copy "
            "the missing file from the instrument's output"
        )
    image: SlideImage | None = None
    if options.image is not None and options.image is not False:
        image = open_image(options.image, options.image_mpp or mpp, options.origin_um)
    return Parts(
        adata,
        image,
        molecules if options.transcripts is not False else None,
        known_um=options.mpp is None,
        notes={
            "format": "cosmx",
            "counts": of,
            "mpp": mpp,
            "mpp_from": source,
            "controls": controls,
        },
    )


def _scale(folder: Path, options: Options) -> tuple[float, str]:
    """µm per pixel, and where it comes from."""
    if options.mpp is not None:
        return options.mpp, "mpp"
    path = find_table(folder, _POSITIONS)
    why = f"no {_POSITIONS}.csv"
    if path is not None:
        fields = read_table(path)
        for px, mm in _MATES:
            if {px, mm} <= set(fields):
                span = np.ptp(numbers(fields, (px, mm), path.name), axis=0) if len(fields) else [0]
                if min(span) > 0:
                    return float(1000 * span[1] / span[0]), path.name
        step = _step(fields, path.name)
        for side, mpp in _FIELDS.items():
            if abs(step / side - 1) < 0.01:
                return mpp, f"fields of view {side} px apart"
        why = (
            f"one field of view in {path.name}"
            if np.isnan(step)
            else f"fields of view {step:.5g} px apart in {path.name}"
        )
    raise ValueError(
        f"Expected the size of a pixel of {folder.name}, got {why} (4256 px: {MPP} µm; 3648 or "
        f"5472 px: {MPP_PROTOTYPE} µm). Pass mpp={MPP} for the instruments that are sold, or "
        f"mpp={MPP_PROTOTYPE} for the prototype of the public lung data"
    )


def _step(fields: pd.DataFrame, name: str) -> float:
    """Median distance of neighbouring fields of view in pixels; NaN for fewer than two."""
    columns = [c for c in ("x_global_px", "y_global_px") if c in fields]
    pos = numbers(fields, columns, name)
    pos = pos[np.isfinite(pos).all(axis=1)]
    if len(columns) < 2 or len(pos) < 2:
        return float("nan")
    return float(np.median(cKDTree(pos).query(pos, k=2)[0][:, 1]))


def _read_molecules(path: Path, mpp: float) -> pd.DataFrame:
    molecules = read_molecules(path, COSMX)
    if not {"fov", "cell_id"} <= set(molecules):
        raise ValueError(f"Expected columns fov, cell_ID in {path.name}: they name the cells")
    molecules[["x_um", "y_um"]] = molecules[["x_um", "y_um"]] * mpp
    cell = molecules["cell_id"].mask(molecules["cell_id"] == "0")  # 0: in no cell
    fov = as_text(molecules.pop("fov"))
    molecules["cell_id"] = (cell + "_" + fov).mask(fov == "")
    return molecules


def _from_matrix(counts: Path, cells: Path, mpp: float) -> tuple[AnnData, int]:
    ids, adata = read_counts(counts, ("fov", "cell_ID", "cell"))
    if missing := [c for c in ("fov", "cell_ID") if c not in ids]:
        raise ValueError(f"Expected columns fov, cell_ID in {counts.name}, got no {missing[0]}")
    inside = (ids["cell_ID"] != 0).to_numpy()  # 0: molecules in no cell
    names = pd.Index(_names(ids[inside]))
    check_names(names, f"cells in {counts.name}", "Are two files joined in it?")
    adata = adata[inside].copy()
    adata.obs_names = names
    table = read_table(cells, needed=("fov", "cell_ID", *_CENTRE))
    table = rows_of(
        table.set_index(_names(table).to_numpy()), adata.obs_names, cells.name, counts.name
    )
    adata.obsm[keys.SPATIAL] = numbers(table, _CENTRE, cells.name) * mpp
    adata.obs = table.drop(columns=[*_CENTRE, "cell_ID", "cell"], errors="ignore")
    return split_controls(adata)


def _names(table: pd.DataFrame) -> pd.Series:
    return as_text(table["cell_ID"]) + "_" + as_text(table["fov"])
