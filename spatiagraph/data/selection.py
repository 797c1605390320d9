"""Selection of cells by id, by row, or by a mask."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph.data.checks import nearest
from spatiagraph.data.slide import Slide


def rows_of(slide: Slide, cells: Sequence[str] | Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
    """Rows of some cells of a slide.

    Args:
        slide: The slide.
        cells: Ids, rows or a mask of the cells.

    Returns:
        In the given order, ``[K]``.

    Raises:
        ValueError: A cell is not on the slide, or the mask is of other cells.

    Examples:
        >>> from spatiagraph.data import make_tissue
        >>> rows_of(make_tissue(100, image=None), ["cell7", "cell3"])
        array([7, 3])
    """
    asked = np.asarray(cells)
    if asked.dtype == bool:
        if asked.shape != (slide.num_cells,):
            raise ValueError(f"Expected a mask of {slide.num_cells} cells, got {asked.shape}")
        return np.flatnonzero(asked)
    if np.issubdtype(asked.dtype, np.integer):
        wrong = asked[(asked < 0) | (asked >= slide.num_cells)]
        if len(wrong):
            raise ValueError(f"Expected rows below {slide.num_cells}, got {wrong[:5].tolist()}")
        return asked.astype(np.int64)
    rows = slide.adata.obs_names.get_indexer(pd.Index(asked.astype(str)))
    if (rows < 0).any():
        missing = asked[rows < 0]
        raise ValueError(
            f"Expected cells of slide {slide.slide_id!r}, got {missing[:5].tolist()}. "
            f"{nearest(str(missing[0]), slide.adata.obs_names.tolist())}"
        )
    return rows.astype(np.int64)
