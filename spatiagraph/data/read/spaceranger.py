"""Space Ranger folders (Visium, Visium HD): counts, spots, images, and the scale in µm."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from spatiagraph import keys
from spatiagraph.data.checks import check_positions
from spatiagraph.data.image import SlideImage
from spatiagraph.data.read.parts import Options, Parts, image_scale, open_image
from spatiagraph.data.read.segmented import CELL_MATRICES, find_cells, read_segmented
from spatiagraph.data.read.tables import (
    DAMAGED,
    check_text,
    listed,
    member,
    numbers,
    positive_number,
    read_json,
    read_table,
    rows_of,
    table_columns,
    unreadable,
)
from spatiagraph.data.read.tenx import find_matrix, read_matrix
from spatiagraph.data.scale import VISIUM_PITCH_UM
from spatiagraph.data.units import check_scale

SPOT_DIAMETER_UM = 65.0
"""Diameter that Space Ranger's ``spot_diameter_fullres`` measures (not the 55 µm printed)."""

_FACTORS = "scalefactors_json.json"
_MATRICES = ("filtered_feature_bc_matrix", "raw_feature_bc_matrix")
_POSITIONS = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
_ZIP = ("", ".gz")
_COLUMNS = [
    "barcode",
    "in_tissue",
    "array_row",
    "array_col",
    "pxl_row_in_fullres",
    "pxl_col_in_fullres",
]
_PIXELS = ["pxl_col_in_fullres", "pxl_row_in_fullres"]


def is_spaceranger(folder: Path) -> bool:
    """Check that a folder looks like Space Ranger output."""
    spatial = _spatial(folder)
    known = any(listed(spatial, f"{n}{zipped}") for n in (*_POSITIONS, _FACTORS) for zipped in _ZIP)
    if spatial == folder:  # flat, as GEO has it: spatial/ itself has no counts
        known = known and find_matrix(folder, _MATRICES, loose=True) is not None
    return known or find_cells(folder) is not None


def _spatial(folder: Path) -> Path:
    """Where positions, factors and images lie: ``spatial/``, or the folder itself without one."""
    inside = member(folder, "spatial")
    return inside if inside.is_dir() else folder


def load_spaceranger(folder: Path, options: Options) -> Parts:
    """Read the spots in tissue of a Space Ranger folder; barcodes without a position are dropped.

    The scale is ``microns_per_pixel`` where Space Ranger wrote it; otherwise it follows from the
    pitch of the array, fitted to rows and columns of the spots, which also works for a few spots.

    Args:
        folder: The folder that holds ``spatial/``.
        options: Scale or image, to override those of the folder.

    Raises:
        ValueError: A file is missing or does not belong to the others; names it.
    """
    spatial = _spatial(folder)
    matrix = find_matrix(folder, _MATRICES, loose=True)
    if matrix is None:
        cells = find_matrix(folder, CELL_MATRICES)
        if cells is not None:
            return _load_cells(folder, cells, options)
        raise ValueError(
            f"Expected {' or '.join(_MATRICES)} (.h5 or folder) beside {spatial}, found neither"
        )
    spots, file = _read_positions(spatial)
    factors = _read_factors(spatial)
    adata, _ = read_matrix(matrix)
    if options.drop_unplaced:
        spots = spots.dropna(subset=_PIXELS)
    placed = adata.obs_names.isin(spots.index)
    lost = []
    if placed.any() and not placed.all():
        lost = [
            f"Dropped {int((~placed).sum())} of {len(placed)} cells of {matrix.name} that have no "
            f"place in {file}: {', '.join(map(repr, adata.obs_names[~placed][:5]))}"
        ]
        adata = adata[placed].copy()
    spots = rows_of(spots, adata.obs_names, file, matrix.name)
    adata.obs = adata.obs.join(spots[["array_row", "array_col", "in_tissue"]])
    pixels = numbers(spots, _PIXELS, file)
    check_positions(pixels, adata.obs_names, file)
    mpp, source = _scale(spots, pixels, factors, options)
    adata.obsm[keys.SPATIAL] = pixels * mpp
    adata = adata[adata.obs["in_tissue"] == 1].copy()
    image, name = _image(spatial, factors, mpp, options)
    return Parts(
        adata,
        image,
        known_um=True,
        notes={
            "format": "spaceranger",
            "counts": matrix.name,
            "mpp": mpp,
            "mpp_from": source,
            "image": name,
        },
        warnings=lost,
    )


def _load_cells(folder: Path, matrix: Path, options: Options) -> Parts:
    """Cells that Space Ranger 4 segmented on Visium HD, at the centroids of their outlines."""
    spatial = _spatial(folder)
    adata, file, lost = read_segmented(folder, matrix)
    pixels = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)
    if options.mpp is not None:
        mpp, source = options.mpp, "mpp"
    else:
        factors = _read_factors(spatial)
        found = positive_number(factors, "microns_per_pixel", _FACTORS)
        if found is None:
            raise ValueError(
                f"Expected microns_per_pixel in {_FACTORS} for the cells of {file}, got none. Pass "
                "mpp=… (µm per full-resolution pixel)"
            )
        mpp, source = found, "microns_per_pixel"
        check_scale(mpp, source, pixels=pixels)
    adata.obsm[keys.SPATIAL] = pixels * mpp
    image, name = _image(spatial, _read_factors(spatial), mpp, options)
    return Parts(
        adata,
        image,
        known_um=options.mpp is None,
        notes={
            "format": "spaceranger cells",
            "counts": matrix.name,
            "outlines": file,
            "mpp": mpp,
            "mpp_from": source,
            "image": name,
        },
        warnings=lost,
    )


def _read_positions(spatial: Path) -> tuple[pd.DataFrame, str]:
    """The spots, indexed by barcode, and the name of their file."""
    names = (f"{name}{zipped}" for name in _POSITIONS for zipped in _ZIP)
    path = next((p for name in names if (p := member(spatial, name)).exists()), None)
    if path is None:
        raise ValueError(f"Expected one of {', '.join(_POSITIONS)} in {spatial}, found none")
    if path.suffix.lower() == ".parquet" or "barcode" in table_columns(path):
        table = read_table(path, needed=_COLUMNS)
    else:  # Space Ranger 1 wrote no header
        try:
            check_text(path)
            table = pd.read_csv(path, header=None)
        except DAMAGED as err:
            raise unreadable(path, err) from err
        if table.shape[1] != len(_COLUMNS):
            raise ValueError(
                f"Expected {len(_COLUMNS)} columns ({', '.join(_COLUMNS)}) in {path.name}, got "
                f"{table.shape[1]}"
            )
        table.columns = pd.Index(_COLUMNS)
    table = table.set_index(table["barcode"].astype(str)).rename_axis(None)
    values = numbers(table, _COLUMNS[1:], path.name)
    table[_COLUMNS[1:]] = values
    wrong = np.flatnonzero(~(np.isin(values[:, 0], (0, 1)) & np.isfinite(values[:, 1:3]).all(1)))
    if len(wrong):
        row = wrong[0]
        raise ValueError(
            f"Expected in_tissue of 0 or 1, array_row and array_col as numbers in {path.name}, got "
            f"{', '.join(f'{v:g}' for v in values[row, :3])} for {table.index[row]!r}. Mend or "
            "drop the row"
        )
    return table, path.name


def _read_factors(spatial: Path) -> dict[str, Any]:
    found = (member(spatial, f"{_FACTORS}{zipped}") for zipped in _ZIP)
    path = next((p for p in found if p.exists()), None)
    return {} if path is None else read_json(path)


def _scale(
    spots: pd.DataFrame, pixels: np.ndarray, factors: dict[str, Any], options: Options
) -> tuple[float, str]:
    """µm per full-resolution pixel, and where it comes from."""
    if options.mpp is not None:
        return options.mpp, "mpp"
    sites = _sites(spots, factors, options)
    if (mpp := positive_number(factors, "microns_per_pixel", _FACTORS)) is not None:
        source = "microns_per_pixel"
    elif sites is None:
        raise ValueError(
            f"Expected microns_per_pixel or bin_size_um in {_FACTORS} for an array of square "
            "bins, got neither. Pass pitch_um=… (2, 8 or 16 for Visium HD), or mpp=…"
        )
    elif np.linalg.matrix_rank(sites - sites.mean(axis=0)) == 2:
        fit = np.linalg.lstsq(sites - sites.mean(axis=0), pixels - pixels.mean(axis=0), rcond=None)[
            0
        ]  # px per µm
        mpp, source = float(1 / np.sqrt(abs(np.linalg.det(fit)))), "pitch of the spots"
    elif (spot := positive_number(factors, "spot_diameter_fullres", _FACTORS)) is not None:
        bin_um = positive_number(factors, "bin_size_um", _FACTORS)
        mpp, source = (bin_um or SPOT_DIAMETER_UM) / spot, "spot_diameter_fullres"
    else:
        raise ValueError(
            f"Expected scalefactors_json.json or spots in several rows and columns to find the "
            f"scale, got {len(spots)} spots. Pass mpp=… (µm per full-resolution pixel)"
        )
    check_scale(mpp, source, pixels=pixels, sites_um=sites)
    return mpp, source


def _sites(spots: pd.DataFrame, factors: dict[str, Any], options: Options) -> np.ndarray | None:
    """Where the array has the spots, in µm, ``[N, 2]``; ``None`` for bins of unknown size."""
    sites = numbers(spots, ["array_col", "array_row"], "the table of spots")
    bin_um = positive_number(factors, "bin_size_um", _FACTORS)
    if bin_um is not None or (sites.sum(axis=1) % 2).any():  # bins: every column of every row
        pitch = options.pitch_um or bin_um
        return None if pitch is None else sites * pitch
    # rows are √3/2 pitches apart; within a row, every second column holds a spot
    pitch = options.pitch_um or VISIUM_PITCH_UM
    return sites * (pitch / 2, pitch * np.sqrt(3) / 2)


def _image(
    spatial: Path, factors: dict[str, Any], mpp: float, options: Options
) -> tuple[SlideImage | None, str | None]:
    if options.image is False:
        return None, None
    if options.image is not None and options.image is not True:  # the full-resolution image
        path = Path(options.image)
        return open_image(path, options.image_mpp or mpp, options.origin_um), path.name
    for kind in ("hires", "lowres"):
        names = [f"tissue_{kind}_image.{s}" for s in ("png", "jpg", "tif", "tiff")]
        found = next((p for n in names if (p := member(spatial, n)).exists()), None)
        factor = positive_number(factors, f"tissue_{kind}_scalef", _FACTORS)
        if found is not None and (options.image_mpp or factor) is not None:
            scale = image_scale(options, mpp / factor if factor else None, _FACTORS)
            return open_image(found, scale, options.origin_um), found.name
    if packed := listed(spatial, "tissue_*_image.*.gz"):
        warnings.warn(
            f"{packed[0].name} is packed and not used: unpack it by gunzip, or pass image=False",
            stacklevel=6,
        )
    if options.image is True:
        raise FileNotFoundError(
            f"Expected tissue_hires_image.png or tissue_lowres_image.png and their scale factor "
            f"in {spatial}, found none"
        )
    return None, None
