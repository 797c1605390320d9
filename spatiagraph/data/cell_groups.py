"""``write_cell_groups``: groups of cells as a table that Xenium Explorer shows on the tissue."""

import os
from pathlib import Path

import pandas as pd
from anndata import AnnData

from spatiagraph._files import replaced_file
from spatiagraph.data.checks import nearest


def write_cell_groups(adata: AnnData, column: str, path: str | os.PathLike[str]) -> Path:
    """Write a column of ``obs`` as ``cell_id,group``, which Xenium Explorer opens as cell groups.

    Args:
        adata: Cells, called as in the folder of the instrument.
        column: The column, as of domains or niches; cells without a value are left out.
        path: The ``.csv`` file.

    Raises:
        ValueError: There is no such column, it has no value, or the file is called otherwise.
        OSError: The place cannot be written to or is full.

    Examples:
        >>> import tempfile
        >>> cells = AnnData(obs=pd.DataFrame({"domain": ["1", None]}, index=["aaab-1", "aaac-1"]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(write_cell_groups(cells, "domain", f"{folder}/groups.csv").read_text())
        cell_id,group
        aaab-1,1
        <BLANKLINE>
    """
    place, columns = Path(path), [str(c) for c in adata.obs.columns]
    if place.suffix.lower() != ".csv":
        raise ValueError(f"Expected a file that ends in .csv, got {place.name}")
    if column not in columns:
        raise ValueError(
            f"Expected groups in obs[{column!r}], got none. {nearest(column, columns)}"
        )
    groups = adata.obs[column].dropna()
    if groups.empty:
        raise ValueError(f"Expected groups of cells in obs[{column!r}], got no value")
    table = pd.DataFrame(
        {"cell_id": groups.index.astype(str), "group": groups.astype(str).to_numpy()}
    )
    with replaced_file(place) as new:
        table.to_csv(new, index=False)
    return place
