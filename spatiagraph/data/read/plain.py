"""Tables with a row for each cell: its place, its type, its section."""

from pathlib import Path

import pandas as pd
from anndata import AnnData

from spatiagraph.data.checks import nearest
from spatiagraph.data.read.parts import Options
from spatiagraph.data.read.tables import read_table

SUFFIXES = (".parquet", ".csv", ".csv.gz")
_IDS = ("cell_id", "cell", "CellID", "cellid", "id")


def is_table(path: Path) -> bool:
    """Check that a file is called like a table."""
    return path.name.endswith(SUFFIXES)


def load_table(path: Path, options: Options) -> AnnData:
    """Read a table of cells as an AnnData without values: all columns are ``obs``.

    Args:
        path: A csv file, possibly gzipped, or parquet.
        options: ``kind="types"``, the columns of the coordinates and of the types.

    Raises:
        ValueError: It is damaged, the columns of the coordinates are not there, or it is to be
            read as anything but types.
    """
    table = read_table(path)
    columns = [str(c) for c in table.columns]
    if options.kind != "types":
        raise ValueError(
            f"Expected an .h5ad file, a .zarr or the folder of a slide, got the file {path.name}, "
            f"a table with columns {', '.join(columns[:12])}. If it has places and types of cells, "
            "pass kind='types' with type_key=…, and x_key=…, y_key=… unless they are called x and y"
        )
    for key in (options.x_key or "x", options.y_key or "y"):
        if key not in columns:
            raise ValueError(
                f"Expected coordinates in column {key!r} of {path.name}, got none. "
                f"{nearest(key, columns)}. Pass x_key=… and y_key=…"
            )
    names = next((table[c] for c in _IDS if c in columns and table[c].is_unique), None)
    table.index = pd.RangeIndex(len(table)) if names is None else pd.Index(names)
    table.index = table.index.astype(str).rename(None)
    return AnnData(obs=table)
