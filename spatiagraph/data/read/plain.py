"""Tables with a row for each cell: its position, its type or the intensities of its proteins."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csr_matrix

from spatiagraph.data.axes import AxisPair, axis_of, axis_pairs, tokens
from spatiagraph.data.checks import nearest
from spatiagraph.data.read.numerals import stays_text
from spatiagraph.data.read.parts import Options
from spatiagraph.data.read.tables import check_numbers, numbers, read_table, table_columns
from spatiagraph.data.sections import may_name_sections

SUFFIXES = tuple(f".{kind}{zipped}" for kind in ("csv", "tsv", "txt") for zipped in ("", ".gz"))
_IDS = ("cell_id", "cell", "CellID", "cellid", "id")
_NO_MARKERS = set(
    "id ids index idx label labels unnamed object parent area size perimeter length axis major "
    "minor eccentricity solidity extent orientation circularity roundness convex diameter width "
    "height aspect feret centroid center x y z row col column fov tile region roi image sample "
    "slide patient donor core tma batch cluster niche leiden louvain neighborhood frame umap tsne "
    "pca bbox distance min max std median time".split()
)  # words of columns that say where, how large or which, and not how much
_SHOWN = 8


def is_table(path: Path) -> bool:
    """Check that a file is called like a table."""
    return path.name.lower().endswith((".parquet", *SUFFIXES))


def load_table(path: Path, options: Options) -> AnnData:
    """Read a table of cells as an AnnData whose coordinates are columns of ``obs``.

    Args:
        path: A csv file, also with semicolons or tabs, possibly gzipped, or parquet.
        options: ``kind="types"`` or ``"protein"`` and the columns of the coordinates and of the
            proteins; columns of coordinates that were not given are noted in it.

    Returns:
        Cells × proteins, or cells without values; all other columns are ``obs``.

    Raises:
        ValueError: It is damaged, the columns of coordinates or proteins are not there, or it is
            to be read as genes.
    """
    table = read_table(path, numeric=_may_be_asked(path, options))
    columns = [str(c) for c in table.columns]
    if not len(table):
        raise ValueError(f"Expected a row for each cell in {path.name}, got none")
    if options.kind == "genes":
        raise ValueError(
            f"Expected an .h5ad file, a .zarr or the folder of a slide, got the file {path.name}, "
            f"a table with columns {', '.join(columns[:12])}. If it has places of cells and types, "
            "pass kind='types' with type_key=…; if intensities of proteins, kind='protein'. Places "
            "are x_key=…, y_key=…, unless they are called x and y. If it has counts of genes, "
            "write an .h5ad of them and of the places: AnnData(counts, obsm={'spatial': "
            "xy_in_um}). If an instrument wrote it, pass its folder"
        )
    options.x_key, options.y_key = x, y = _place_columns(table, path, options)
    check_numbers(table, [x, y], path.name)
    has_scale = options.mpp is not None or options.pitch_um is not None or options.assume_um
    pair = next(iter(axis_pairs([x, y])), None)
    is_told = pair is not None and (pair.unit is not None or pair.is_um_by_maker)
    if not (has_scale or is_told):
        warnings.warn(
            f"{x} and {y} of {path.name} name no unit and are taken as µm: pass mpp=… (µm per "
            "pixel) if they are pixels, mpp=1 to confirm",
            stacklevel=5,
        )
    markers: list[str] = []
    if options.kind == "protein":
        markers = _markers(table, path, options)
    names = next((table[c] for c in _IDS if c in columns and table[c].is_unique), None)
    if names is None and (ids := next((c for c in _IDS if c in columns), None)) is not None:
        twice = int(table[ids].duplicated(keep=False).sum())
        warnings.warn(
            f"{twice} of {len(table)} rows of {path.name} share their {ids} with another: cells "
            "are called by their row. If they are of several sections, pass sample_key=…",
            stacklevel=5,
        )
    table.index = pd.RangeIndex(len(table)) if names is None else pd.Index(names)
    table.index = table.index.astype(str).rename(None)
    if not markers:
        return AnnData(obs=table)
    values = csr_matrix(numbers(table, markers, path.name), dtype=np.float32)
    obs = table.drop(columns=markers)
    return AnnData(values, obs=obs, var=pd.DataFrame(index=pd.Index(markers, dtype=object)))


def _may_be_asked(path: Path, options: Options) -> list[str]:
    """Columns that are read as coordinates or proteins if they are there."""
    keys = [options.x_key, options.y_key]
    pairs = axis_pairs(table_columns(path)) if keys == [None, None] else []
    asked = [*keys, *(name for pair in pairs for name in (pair.x, pair.y))]
    return [*filter(None, asked), *(options.markers or ())]


def _place_columns(table: pd.DataFrame, path: Path, options: Options) -> tuple[str, str]:
    """Names of the columns of x and y: as given, or the only ones that are called so."""
    columns = [str(c) for c in table.columns]
    if options.x_key is None and options.y_key is None:
        pairs = [pair for pair in axis_pairs(columns) if _is_numeric(table, pair)]
        plain = [p for p in pairs if not p.rest and p.unit is None]
        found = plain or [p for p in pairs if {"centroid", "center"} & set(p.rest)] or pairs
        if len(found) == 1:
            return found[0].x, found[0].y
        if found:
            ways = " or ".join(f"x_key={p.x!r} with y_key={p.y!r}" for p in found[:4])
            raise ValueError(
                f"Expected one pair of columns of coordinates in {path.name}, got {len(found)}: "
                f"pass {ways}"
            )
    x, y = options.x_key or "x", options.y_key or "y"
    for key in (x, y):
        if key not in columns:
            raise ValueError(
                f"Expected coordinates in column {key!r} of {path.name}, got none. "
                f"{nearest(key, columns)}. Pass x_key=… and y_key=…"
            )
    return x, y


def _is_numeric(table: pd.DataFrame, pair: AxisPair) -> bool:
    columns = (table[name] for name in (pair.x, pair.y))
    return all(pd.api.types.is_numeric_dtype(c) or stays_text(c) for c in columns)


def _markers(table: pd.DataFrame, path: Path, options: Options) -> list[str]:
    """Columns that are proteins: those given, or all numbers that are called like nothing else."""
    columns = [str(c) for c in table.columns]
    if options.markers is not None:
        lost = [name for name in options.markers if name not in columns]
        if lost:
            raise ValueError(
                f"Expected proteins {', '.join(map(repr, lost[:_SHOWN]))} in {path.name}, got no "
                f"such columns. {nearest(lost[0], columns)}"
            )
        return list(options.markers)
    numeric = [
        c
        for c in columns
        if pd.api.types.is_numeric_dtype(table[c]) and not pd.api.types.is_bool_dtype(table[c])
        and c not in (options.x_key, options.y_key, *_IDS)
    ]  # fmt: skip
    found = [
        c
        for c in numeric
        if axis_of(c) is None and not _NO_MARKERS & set(tokens(c)) and not may_name_sections(c)
    ]
    if not found:
        raise ValueError(
            f"Expected columns of proteins in {path.name}, got {', '.join(columns[:12])}. Pass "
            "markers=[…], the names of those columns"
        )
    others = [c for c in numeric if c not in found]
    left = f", and {_few(others)} for none" if others else ""
    if odd := [c for c in columns if c not in _IDS and stays_text(table[c])]:
        left += f"; {_few(odd)}, which may be numbers or lists, stay text"
    warnings.warn(
        f"Of {path.name}, {_few(found)} are taken for proteins{left}: pass markers=[…] for others",
        stacklevel=5,
    )
    return found


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
