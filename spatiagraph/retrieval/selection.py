"""Queries of a search: cells by id, inside a region, or of a niche."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.data.checks import nearest
from spatiagraph.retrieval.filters import Filter, filter_mask
from spatiagraph.retrieval.regions import in_region

X_UM, Y_UM = "x_um", "y_um"
"""Columns of a table of items with their position on the slide in µm."""


def select_rows(
    obs: pd.DataFrame,
    *,
    cells: str | Sequence[str] | None = None,
    slide: str | None = None,
    region: Any = None,
    where: Filter | None = None,
) -> NDArray[np.int64]:
    """Rows of a table of cells that meet all conditions; all rows where there is none.

    Args:
        obs: One row per cell, ``N``, named by cell id; ``slide_id``, ``x_um`` and ``y_um`` where
            slides and regions are selected by.
        cells: Ids.
        slide: Name of their slide.
        region: Corners in µm ``[V, 2]``, a shapely geometry, or GeoJSON, as in
            :func:`~spatiagraph.retrieval.in_region`.
        where: A condition as in :func:`~spatiagraph.retrieval.filters.filter_mask`, such as
            ``{"niche": "tumour edge"}``.

    Returns:
        ``[R]``, ascending.

    Raises:
        ValueError: If a cell, slide, column or label does not exist (suggests the nearest), a
            cell or region could be on several slides, or no cell is left.
    """
    mask = np.ones(len(obs), dtype=bool)
    if slide is not None:
        mask &= _on_slide(obs, slide)
    if where is not None:
        mask &= filter_mask(obs, where)
        if not mask.any():
            raise ValueError(_none_meets(obs, where))
    if region is not None:
        mask &= _inside(obs, region, mask)
    if cells is not None:
        mask &= _called(obs, [cells] if isinstance(cells, str) else list(cells), mask)
    return np.flatnonzero(mask)


def _on_slide(obs: pd.DataFrame, slide: str) -> NDArray[np.bool_]:
    names = _slides(obs)
    found = (names == slide).to_numpy()
    if not found.any():
        raise ValueError(
            f"Expected the id of a slide, got {slide!r}. {nearest(slide, sorted(names.unique()))}"
        )
    return found


def _slides(obs: pd.DataFrame) -> pd.Series:
    if keys.SLIDE_ID not in obs:
        return pd.Series([""] * len(obs), index=obs.index)
    return obs[keys.SLIDE_ID].astype(str)


def _inside(obs: pd.DataFrame, region: Any, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if X_UM not in obs or Y_UM not in obs:
        raise ValueError(
            f"Expected {X_UM!r} and {Y_UM!r} with the items, to find a region, got "
            f"{', '.join(map(str, obs)) or 'no columns'}; build the index from slides"
        )
    names = _slides(obs)[mask].unique().tolist()
    if len(names) > 1:
        raise ValueError(
            f"Expected one slide for the region, it could be on {', '.join(names)}: choose with "
            "slide (--slide)"
        )
    pos = obs[[X_UM, Y_UM]].to_numpy(dtype=np.float64)
    found = in_region(pos, region) & mask
    if not found.any():
        (x0, y0), (x1, y1) = pos[mask].min(0), pos[mask].max(0)
        raise ValueError(
            f"Expected cells inside the region, got none: cells{f' of {names[0]}' * bool(names[0])}"
            f" lie at x {x0:.0f} to {x1:.0f} and y {y0:.0f} to {y1:.0f} µm"
        )
    return found


def _called(obs: pd.DataFrame, cells: list[str], mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    names = obs.index.astype(str)
    found = np.asarray(names.isin(cells)) & mask
    number = names[found].value_counts()
    for cell in cells:
        if cell not in number:
            on = _slides(obs)[mask].unique()
            place = f"slide {on[0]!r}" if len(on) == 1 and on[0] else "the slides"
            close = nearest(cell, names[mask].tolist())
            raise ValueError(f"Expected the id of a cell of {place}, got {cell!r}. {close}")
        if number[cell] > 1:
            several = ", ".join(_slides(obs)[found & np.asarray(names == cell)])
            raise ValueError(f"Cells of {several} are called {cell!r}: choose with slide (--slide)")
    return found


def _none_meets(obs: pd.DataFrame, where: Filter) -> str:
    text = where if isinstance(where, str | dict) else "the mask"
    message = f"Expected cells that meet {text!r}, got none"
    if isinstance(where, dict) and len(where) == 1:
        column = next(iter(where))
        labels = [str(v) for v in obs[column].dropna().unique()]
        message += f". {nearest(str(dict(where)[column]), labels[:50])}"
    return message
