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
from spatiagraph.data.read.corners import OutlinesFile
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
    finite_numbers,
    numbers,
    place_cells,
    read_counts,
    read_table,
    table_columns,
)
from spatiagraph.data.units import check_scale, similarity_scale

MPP = 0.120280945
"""µm per pixel of the instruments that are sold; a field of view has 4256 × 4256 pixels."""
MPP_PROTOTYPE = 0.18
"""µm per pixel of the prototype that made the first public lung data; 5472 × 3648 pixels."""

_FIELDS = {4256: MPP, 3648: MPP_PROTOTYPE, 5472: MPP_PROTOTYPE}  # side in pixels → µm per pixel
_COUNTS, _CELLS, _MOLECULES, _POSITIONS = (
    f"*{stem}" for stem in ("exprMat_file", "metadata_file", "tx_file", "fov_positions_file")
)
_CENTRE = ("CenterX_global_px", "CenterY_global_px")
_LOCAL = ("CenterX_local_px", "CenterY_local_px")
_SLIDE_MM = ("x_slide_mm", "y_slide_mm")
_FIELD_PX = ("x_global_px", "y_global_px")
_FIELD_MM = (("x_global_mm", "y_global_mm"), ("X_mm", "Y_mm"), ("x_mm", "y_mm"))
_PIXELS = (0.1, 0.25)  # µm: what an instrument may have
_ASK = (
    f"(4256 px: {MPP} µm; 3648 or 5472 px: {MPP_PROTOTYPE} µm). Pass mpp={MPP} for the instruments "
    f"that are sold, or mpp={MPP_PROTOTYPE} for the prototype of the public lung data"
)


def is_cosmx(folder: Path) -> bool:
    """Check that a folder looks like CosMx flat files, complete or not."""
    return any(
        (table := find_table(folder, stem)) is not None and mark in table_columns(table)
        for stem, mark in (
            (_COUNTS, "cell_ID"),
            (_CELLS, _CENTRE[0]),
            (_CELLS, _SLIDE_MM[0]),
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
    counts, cells = find_table(folder, _COUNTS), find_table(folder, _CELLS)
    table = find_table(folder, _MOLECULES)
    if counts is not None and cells is not None and _in_mm(cells):
        return _from_mm(counts, cells, table, options)
    mpp, source = pixel_scale(folder, options)
    molecules = None
    if table is not None and (options.transcripts is not False or counts is None):
        molecules = _read_molecules(table, mpp)
    if counts is not None and cells is not None:
        adata, controls = _from_matrix(counts, cells, _CENTRE, mpp, options.drop_unplaced)
        of = counts.name
    elif counts is None and cells is None and table is not None and molecules is not None:
        adata, controls, of = count_molecules(molecules), num_controls(molecules), table.name
    else:
        raise ValueError(
            f"Expected {_COUNTS}.csv with {_CELLS}.csv, or {_MOLECULES}.csv alone, in "
            f"{folder.name}, got {', '.join(p.name for p in (counts, cells, table) if p)}. Copy "
            "the missing file from the instrument's output"
        )
    if options.mpp is None:
        placed = np.isfinite(adata.obsm[keys.SPATIAL]).all(axis=1)  # others are refused later
        check_scale(mpp, source, pixels=adata.obsm[keys.SPATIAL][placed] / mpp)
    image: SlideImage | None = None
    if options.image is not None and options.image is not False:
        image = open_image(options.image, options.image_mpp or mpp, options.origin_um)
    return Parts(
        adata,
        image,
        molecules if options.transcripts is not False else None,
        outlines_file=_outlines(folder, mpp) if options.outlines is True else None,
        known_um=options.mpp is None,
        notes={
            "format": "cosmx",
            "counts": of,
            "mpp": mpp,
            "mpp_from": source,
            "controls": controls,
        },
    )


def _outlines(folder: Path, mpp: float) -> OutlinesFile | None:
    found = find_table(folder, "*polygons")
    return None if found is None else OutlinesFile(found, mpp)


def _in_mm(cells: Path) -> bool:
    """Whether cells have places on the slide in mm, and none in pixels."""
    have = table_columns(cells)
    return set(_SLIDE_MM) <= set(have) and not set(_CENTRE) <= set(have)


def _from_mm(counts: Path, cells: Path, molecules: Path | None, options: Options) -> Parts:
    """Cells whose places are in mm alone; molecules are in pixels of another origin."""
    if options.mpp is not None:
        raise ValueError(
            f"Expected no mpp with {', '.join(_SLIDE_MM)} of {cells.name}, which are mm, got "
            f"mpp={options.mpp:g}: leave it out"
        )
    adata, controls = _from_matrix(counts, cells, _SLIDE_MM, 1000.0, options.drop_unplaced)
    placed = np.isfinite(adata.obsm[keys.SPATIAL]).all(axis=1)
    check_scale(1.0, f"mm of {cells.name}", pixels=adata.obsm[keys.SPATIAL][placed])
    heard = []
    if molecules is not None and options.transcripts is not False:
        heard = [
            f"{molecules.name} is left out: its molecules lie in pixels of the instrument, and the "
            f"cells of {cells.name} in mm of the slide alone. transcripts=False says so"
        ]
    image: SlideImage | None = None
    if not isinstance(options.image, bool | None):
        image = open_image(options.image, options.image_mpp, options.origin_um)
    notes = {
        "format": "cosmx",
        "counts": counts.name,
        "mpp_from": f"mm of {cells.name}",
        "controls": controls,
    }
    return Parts(adata, image, known_um=True, notes=notes, warnings=heard)


def pixel_scale(folder: Path, options: Options) -> tuple[float, str]:
    """µm per pixel, and where it comes from."""
    if options.mpp is not None:
        return options.mpp, "mpp"
    path, cells = find_table(folder, _POSITIONS), find_table(folder, _CELLS)
    why = f"no {_POSITIONS}.csv"
    table = None if cells is None else read_table(cells, [*_CENTRE, *_LOCAL, *_SLIDE_MM, "fov"])
    if path is not None:
        fields = read_table(path)
        places = [
            c for c in fields if c in {*_FIELD_PX, *(n for names in _FIELD_MM for n in names)}
        ]
        fields = fields.dropna(subset=places).reset_index(drop=True)  # fields that were not imaged
        px, mm = _places(fields, path.name)
        if px is not None and mm is not None and len(np.unique(px, axis=0)) > 1:
            return _instrument(px, mm, path.name, folder), path.name
        if px is None and mm is not None and table is not None:
            fitted = _by_cells(fields, mm, table)
            known = next((m for m in (MPP, MPP_PROTOTYPE) if abs(fitted / m - 1) < 0.05), None)
            if known is not None:
                return known, f"mm in {path.name} and the cells of the fields of view"
        step = _step(px)
        for side, mpp in _FIELDS.items():
            if abs(step / side - 1) < 0.01:
                return mpp, f"fields of view {side} px apart"
        if px is None and len(fields) > 1:
            why = f"{len(fields)} fields of view without x_global_px and y_global_px"
        elif np.isnan(step):
            why = "one field of view"
        else:
            why = f"fields of view {step:.5g} px apart"
        why = f"{why} in {path.name}"
    if table is not None and cells is not None and {*_CENTRE, *_SLIDE_MM} <= set(table):
        px, mm = (numbers(table, c, cells.name) for c in (_CENTRE, _SLIDE_MM))
        placed = np.isfinite(px + mm).all(axis=1)  # others are refused later, or dropped
        return _instrument(px[placed], mm[placed], cells.name, folder), cells.name
    raise ValueError(f"Expected the size of a pixel of {folder.name}, got {why} {_ASK}")


def _instrument(px: np.ndarray, mm: np.ndarray, source: str, folder: Path) -> float:
    """µm per pixel of the same places in px and in mm.

    Raises:
        ValueError: They are not the same, or there is no such instrument.
    """
    fitted = similarity_scale(px, mm * 1000)
    low, high = _PIXELS
    if fitted is not None and low <= fitted <= high:
        return fitted
    what = (
        "places in px and in mm that do not agree"
        if fitted is None
        else f"{fitted:.4g} µm per pixel, which no instrument has,"
    )
    raise ValueError(
        f"Expected the size of a pixel of {folder.name}, got {what} in {source} {_ASK}"
    )


def _places(fields: pd.DataFrame, name: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Fields of view in px and in mm, ``[N, 2]``, where the table has them.

    Old versions have x alone in both; then y is left out of both.
    """
    px = [c for c in _FIELD_PX if c in fields]
    mm: list[str] = next((h for n in _FIELD_MM if (h := [c for c in n if c in fields])), [])
    if len(px) == len(_FIELD_PX) and len(mm) == 1:
        px = [px[0] if mm[0].lower().startswith("x") else px[1]]
    found = [finite_numbers(fields, c, name) if c and len(fields) else None for c in (px, mm)]
    a, b = (v if v is None or v.shape[1] == 2 else np.c_[v, 0 * v] for v in found)
    return a, b


def _by_cells(fields: pd.DataFrame, mm: np.ndarray, cells: pd.DataFrame) -> float:
    """µm per pixel from where the cells of each field lie, as good as they fill it; else NaN."""
    fov = next((c for c in ("fov", "FOV") if c in fields), None)
    if fov is None or not {"fov", *_CENTRE} <= set(cells):
        return float("nan")
    centre = cells[list(_CENTRE)].to_numpy(np.float64)
    if set(_LOCAL) <= set(cells):  # corners of the fields, exactly
        centre = centre - cells[list(_LOCAL)].to_numpy(np.float64)
    of_field = pd.DataFrame(centre).groupby(as_text(cells["fov"]).to_numpy())
    middle = (of_field.min() + of_field.max()) / 2
    rows = middle.index.get_indexer(pd.Index(as_text(fields[fov])))
    there = rows >= 0
    if there.sum() < 2:
        return float("nan")
    px, um = middle.to_numpy()[rows[there]], mm[there] * 1000
    spread = ((px - px.mean(axis=0)) ** 2).sum()
    return float(np.sqrt(((um - um.mean(axis=0)) ** 2).sum() / spread)) if spread > 0 else np.nan


def _step(px: np.ndarray | None) -> float:
    """Median distance of neighbouring fields of view in pixels; NaN for fewer than two."""
    if px is None or len(px) < 2:
        return float("nan")
    return float(np.median(cKDTree(px).query(px, k=2)[0][:, 1]))


def _read_molecules(path: Path, mpp: float) -> pd.DataFrame:
    molecules = read_molecules(path, COSMX)
    if not {"fov", "cell_id"} <= set(molecules):
        raise ValueError(f"Expected columns fov, cell_ID in {path.name}: they name the cells")
    molecules[["x_um", "y_um"]] = molecules[["x_um", "y_um"]] * mpp
    cell = molecules["cell_id"].mask(molecules["cell_id"] == "0")  # 0: in no cell
    fov = as_text(molecules.pop("fov"))
    molecules["cell_id"] = (cell + "_" + fov).mask(fov == "")
    return molecules


def _from_matrix(
    counts: Path, cells: Path, centre: tuple[str, str], mpp: float, drop_unplaced: bool
) -> tuple[AnnData, int]:
    """Cells with their counts, at two columns of the metadata times ``mpp``."""
    ids, adata = read_counts(counts, ("fov", "cell_ID", "cell"))
    if missing := [c for c in ("fov", "cell_ID") if c not in ids]:
        raise ValueError(f"Expected columns fov, cell_ID in {counts.name}, got no {missing[0]}")
    inside = (ids["cell_ID"] != 0).to_numpy()  # 0: molecules in no cell
    names = pd.Index(_names(ids[inside]))
    check_names(names, f"cells in {counts.name}", "Are two files joined in it?")
    adata = adata[inside].copy()
    adata.obs_names = names
    table = read_table(cells, needed=("fov", "cell_ID", *centre))
    adata, table = place_cells(
        adata,
        table.set_index(_names(table).to_numpy()),
        centre,
        cells.name,
        counts.name,
        drop_unplaced=drop_unplaced,
    )
    adata.obsm[keys.SPATIAL] *= mpp
    adata.obs = table.drop(columns=[*centre, "cell_ID", "cell"], errors="ignore")
    return split_controls(adata)


def _names(table: pd.DataFrame) -> pd.Series:
    return as_text(table["cell_ID"]) + "_" + as_text(table["fov"])
