"""Features from tables of other programs, matched to spots by slide and barcode."""

import numpy as np
import pandas as pd

from spatiagraph.data.checks import name_rows
from spatiagraph.data.slide import Slide


def join_features(slide: Slide, key: str, table: pd.DataFrame) -> None:
    """Put the rows of a table in ``obsm``, by the names of the cells and never by their order.

    Args:
        slide: The slide, which is written to.
        key: Slot of ``obsm``.
        table: One row per cell, named as in ``obs_names``, or by slide and cell (two levels of
            names) where it is of several slides. Rows of other cells are left alone. Names of
            cells alone are taken for those of this slide: barcodes of slides repeat, and a table
            of another one is not told by them.

    Raises:
        ValueError: If a cell has no row, or two; names the cells.
    """
    rows = table
    if table.index.nlevels == 2:
        of_slide = table.index.get_level_values(0) == slide.slide_id
        rows = table[of_slide].droplevel(0)
    elif table.index.nlevels != 1:
        raise ValueError(
            f"Expected rows named by cell, or by slide and cell, got {table.index.nlevels} names"
        )
    if rows.index.has_duplicates:
        twice = rows.index[rows.index.duplicated()][0]
        raise ValueError(f"Expected each cell once in the table, got {twice!r} more than once")
    place = rows.index.get_indexer(slide.adata.obs_names)
    missing = np.flatnonzero(place < 0)
    if missing.size:
        raise ValueError(
            f"Expected a row for every cell of slide {slide.slide_id!r}, got none for "
            f"{name_rows(slide.adata.obs_names, missing)}"
        )
    slide.adata.obsm[key] = rows.to_numpy(np.float32)[place]
