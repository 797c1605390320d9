"""Items that a search may return, and the table of its hits."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph.retrieval.filters import Filter, filter_mask

_RESULT = ("query", "rank", "row", "id", "distance")


def allowed_items(
    obs: pd.DataFrame, where: Filter | None, exclude: Any, num_queries: int
) -> tuple[NDArray[np.bool_] | None, NDArray[np.int64]]:
    """Items allowed for all queries ``[N]`` and rows hidden from each query ``[Q, R]``.

    Args:
        obs: Metadata of the items, ``N`` rows.
        where: What items must meet.
        exclude: What they must not: a condition, rows ``[R]``, or rows of each query ``[Q, R]``.
        num_queries: ``Q``.

    Raises:
        ValueError: If a filter names an unknown column, or rows are none.
    """
    mask = None if where is None else filter_mask(obs, where)
    none = np.empty((num_queries, 0), dtype=np.int64)
    if exclude is None:
        return mask, none
    if not isinstance(exclude, str | Mapping):
        exclude = np.asarray(exclude)
        if exclude.dtype != bool:
            rows = check_rows(exclude, len(obs))
            if rows.ndim == 2 and len(rows) != num_queries:
                raise ValueError(
                    f"Expected 'exclude' of shape [{num_queries}, R] (one row per query), got "
                    f"{rows.shape}"
                )
            if rows.ndim == 2:
                return mask, rows
            exclude = np.zeros(len(obs), dtype=bool)
            exclude[rows] = True
    keep = ~filter_mask(obs, exclude)
    return keep if mask is None else mask & keep, none


def check_rows(rows: Any, num_items: int) -> NDArray[np.int64]:
    """Row numbers as int64.

    Raises:
        ValueError: If they are no integers ``[R]`` or ``[Q, R]``, or beyond the items.
    """
    rows = np.asarray(rows)
    rows = rows.astype(np.int64) if rows.size == 0 else rows
    if not np.issubdtype(rows.dtype, np.integer) or rows.ndim > 2:
        raise ValueError(f"Expected rows as integers [R], got {rows.dtype} {rows.shape}")
    wrong = rows[(rows < 0) | (rows >= num_items)]
    if len(wrong):
        raise ValueError(f"Expected rows in [0, {num_items}), got {wrong[:5].tolist()}")
    return rows.astype(np.int64)


def check_choice(
    num_items: int, mask: NDArray[np.bool_] | None, own: NDArray[np.int64], k: int, condition: str
) -> int:
    """Number of items that a search chooses from.

    Args:
        num_items: All items.
        mask: Items allowed for all queries, ``[N]``.
        own: Rows hidden from each query, ``[Q, R]``.
        k: Number of results.
        condition: What items are to meet, for the message.

    Raises:
        ValueError: If there are fewer than ``k``.
    """
    if k < 1:
        raise ValueError(f"Expected 'k' of at least 1, got {k}")
    left = num_items if mask is None else int(mask.sum())
    if mask is not None and left == 0:
        raise ValueError(f"Expected items that meet {condition}, found none")
    if k + own.shape[1] > left and k > left - _most_hidden(own, mask):
        raise ValueError(
            f"Expected 'k' of at most {left - _most_hidden(own, mask)}, the number of items "
            f"to choose from, got {k}"
        )
    return left


def hits_table(obs: pd.DataFrame, distance: NDArray, row: NDArray) -> pd.DataFrame:
    """Items found, ``[Q, K]`` each, with their metadata."""
    num, k = row.shape
    found = obs.iloc[row.ravel()]
    table = pd.DataFrame(
        {
            "query": np.repeat(np.arange(num), k),
            "rank": np.tile(np.arange(1, k + 1), num),
            "row": row.ravel(),
            "id": found.index.to_numpy(),
            "distance": distance.ravel().clip(min=0),
        }
    )
    clash = {c: f"{c}_obs" for c in found.columns if c in _RESULT}
    return pd.concat([table, found.rename(columns=clash).reset_index(drop=True)], axis=1)


def said(where: Any, exclude: Any) -> str:
    """Describe the conditions on items in words."""
    parts = {"where": where, "exclude": exclude}
    return " and ".join(
        f"{name}={value if isinstance(value, str | dict) else 'the mask'!r}"
        for name, value in parts.items()
        if value is not None
    )


def _most_hidden(own: NDArray[np.int64], mask: NDArray[np.bool_] | None) -> int:
    """Most items that any query loses to its own exclusions."""
    if own.shape[1] == 0:
        return 0
    lost = [{int(r) for r in rows if mask is None or mask[r]} for rows in own]
    return max(len(rows) for rows in lost)
