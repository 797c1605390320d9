"""Xenium folders. Everything is in µm already; the image has the pixel size of its metadata."""

import warnings
from pathlib import Path

import numpy as np
from anndata import AnnData

from spatiagraph import keys
from spatiagraph.data.image import SlideImage
from spatiagraph.data.read.controls import CONTROL_COUNTS
from spatiagraph.data.read.corners import OutlinesFile
from spatiagraph.data.read.molecules import (
    as_text,
    count_molecules,
    num_controls,
    polygon_centroids,
    read_molecules,
)
from spatiagraph.data.read.parts import Options, Parts, image_scale, open_image, stored_mpp
from spatiagraph.data.read.tables import (
    find_table,
    listed,
    member,
    numbers,
    place_cells,
    positive_number,
    read_json,
    read_table,
    table_columns,
)
from spatiagraph.data.read.tenx import find_matrix, read_matrix

_MATRICES = ("cell_feature_matrix",)
_CENTRE = ("x_centroid", "y_centroid")
_MORPHOLOGY = ("morphology_focus/*.ome.tif", "morphology_focus.ome.tif", "morphology_mip.ome.tif")
"""In order of preference; any file of a set opens all of it, and the first is DAPI."""


def has_experiment(folder: Path) -> bool:
    """Check that a folder has the manifest of Xenium."""
    return bool(listed(folder, "experiment.xenium"))


def is_xenium(folder: Path) -> bool:
    """Check that a folder without the marks of others looks like Xenium output, complete or not."""
    if has_experiment(folder):
        return True
    if find_matrix(folder, _MATRICES) is not None and find_table(folder, "cells") is not None:
        return True
    table = find_table(folder, "transcripts")
    return table is not None and (
        {"x_location", "feature_name", "cell_id"} <= set(table_columns(table))
    )


def load_xenium(folder: Path, options: Options) -> Parts:
    """Read a Xenium folder.

    Counts come from ``cell_feature_matrix`` with the centroids of ``cells``; where these are
    missing, they are counted from ``transcripts`` at quality 20, as the instrument does, with the
    centroids of ``cell_boundaries``. These files are plain HDF5, parquet and csv, so nothing
    beyond the core dependencies is needed.

    Args:
        folder: The folder, with ``experiment.xenium`` or without.
        options: Image and pixel size, to override those of the folder.

    Raises:
        ValueError: Neither counts nor transcripts are there; says which files were looked for.
    """
    if options.pitch_um is not None or options.mpp is not None:
        raise ValueError("Expected no mpp or pitch_um: the coordinates of Xenium are µm")
    table = find_table(folder, "transcripts")
    matrix = find_matrix(folder, _MATRICES)
    cells = find_table(folder, "cells")
    outlines = find_table(folder, "cell_boundaries")
    molecules = None
    if table is not None and (options.transcripts is not False or None in (matrix, cells)):
        molecules = read_molecules(table)
    if matrix is not None and cells is not None:
        (adata, controls), source = _from_matrix(matrix, cells, options.drop_unplaced), matrix.name
    elif molecules is not None:
        adata, controls = count_molecules(molecules), num_controls(molecules)
        source = f"{table.name}, qv ≥ 20" if table else ""
        if outlines is not None:
            _place_by_outlines(adata, outlines)
    else:
        raise ValueError(
            f"Expected cell_feature_matrix (.h5 or folder) with cells (.parquet, .csv), or "
            f"transcripts (.parquet, .csv), in {folder}; found neither. Copy them from the "
            "instrument's output"
        )
    return Parts(
        adata,
        _image(folder, options),
        molecules if options.transcripts is not False else None,
        outlines_file=OutlinesFile(outlines) if outlines and options.outlines is True else None,
        known_um=True,
        notes={"format": "xenium", "counts": source, "controls": controls},
    )


def _from_matrix(matrix: Path, cells: Path, drop_unplaced: bool) -> tuple[AnnData, int]:
    adata, controls = read_matrix(matrix)
    table = read_table(cells, needed=("cell_id", *_CENTRE))
    table = table.set_index(as_text(table.pop("cell_id"), f" of {cells.name}").to_numpy())
    adata, table = place_cells(
        adata, table, _CENTRE, cells.name, matrix.name, drop_unplaced=drop_unplaced
    )
    adata.obs = adata.obs.join(table.drop(columns=[*_CENTRE, CONTROL_COUNTS], errors="ignore"))
    return adata, controls


def _place_by_outlines(adata: AnnData, file: Path) -> None:
    """Centroids of the outlines; a cell without outline keeps the mean of its molecules.

    Raises:
        ValueError: A corner is no place, or the outlines are those of other cells.
    """
    corners = ["vertex_x", "vertex_y"]
    outlines = read_table(file, needed=("cell_id", *corners))
    outlines[corners] = numbers(outlines, corners, file.name)
    bad = np.flatnonzero(~np.isfinite(outlines[corners].to_numpy()).all(axis=1))
    if len(bad):
        raise ValueError(
            f"Expected corners of cells in {file.name} as finite numbers, got none in {len(bad)} "
            f"rows (first: {bad[:5].tolist()}). Drop these outlines, or the file"
        )
    found = polygon_centroids(outlines)
    if len(found) and not found.index.isin(adata.obs_names).any():
        raise ValueError(
            f"Expected outlines of the cells in {file.name}, got those of others: "
            f"{', '.join(map(repr, found.index[:3]))}, … Delete the file to place cells at the "
            "mean of their molecules"
        )
    centre = found.reindex(adata.obs_names).to_numpy(dtype=np.float64)
    pos = adata.obsm[keys.SPATIAL]
    adata.obsm[keys.SPATIAL] = np.where(np.isfinite(centre), centre, pos)


def _image(folder: Path, options: Options) -> SlideImage | None:
    if options.image is False:
        return None
    mpp: float | None = None
    specs = member(folder, "experiment.xenium")
    given = None if isinstance(options.image, bool | None) else Path(options.image)
    is_own = given is None or given.name.lower().startswith("morphology")
    if given is not None and not is_own:  # of another microscope
        mpp = options.image_mpp or stored_mpp(given)
    if mpp is None and specs.exists():
        mpp = positive_number(read_json(specs), "pixel_size", specs.name)
        if given is None or is_own:
            mpp = image_scale(options, mpp, specs.name)
        elif given.exists():
            warnings.warn(
                f"{given.name} does not say its scale and is taken to have the {mpp:g} µm per "
                "pixel of the instrument: pass image_mpp=…",
                stacklevel=6,
            )
    mpp = mpp or options.image_mpp
    if options.image is None or options.image is True:
        found = next((p for name in _MORPHOLOGY for p in listed(folder, name)), None)
        if found is None and options.image is True:
            raise FileNotFoundError(
                f"Expected one of {', '.join(_MORPHOLOGY)} in {folder}, found none"
            )
        return None if found is None else open_image(found, mpp, options.origin_um)
    return open_image(options.image, mpp, options.origin_um)
