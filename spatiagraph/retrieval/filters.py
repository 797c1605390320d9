"""Metadata filters: which items of an index may be returned."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph.retrieval.conditions import meets, unknown_column

Filter = Mapping[str, Any] | str | NDArray[np.bool_]
"""``{column: value or values}``, a condition such as ``"age > 50"``, or a bool mask ``[N]``."""


def filter_mask(obs: pd.DataFrame, where: Filter) -> NDArray[np.bool_]:
    """Rows of a table that meet a condition.

    Args:
        obs: Metadata of the items, ``N`` rows.
        where: The condition, as in :func:`~spatiagraph.retrieval.conditions.meets`. All columns
            of a dictionary must match.

    Returns:
        ``[N]`` bool.

    Raises:
        ValueError: If a column does not exist (suggests the nearest), is compared with what
            it cannot hold, a condition is not of the grammar in
            :mod:`spatiagraph.retrieval.grammar` (says where), or the mask has another length.

    Examples:
        >>> obs = pd.DataFrame({"slide": ["a", "a", "b"], "age": [3, 60, 70]})
        >>> filter_mask(obs, {"slide": "a"}), filter_mask(obs, "age > 50")
        (array([ True,  True, False]), array([False,  True,  True]))
    """
    if isinstance(where, str):
        return meets(obs, where)
    if isinstance(where, Mapping):
        mask = np.ones(len(obs), dtype=bool)
        for column, value in where.items():
            if column not in obs.columns:
                raise ValueError(f"Expected {unknown_column(column, obs)}")
            several = isinstance(value, Collection) and not isinstance(value, str | bytes)
            mask &= obs[column].isin(list(value) if several else [value]).to_numpy()
        return mask
    mask = np.asarray(where)
    if mask.dtype != bool or mask.shape != (len(obs),):
        raise ValueError(
            f"Expected a filter as a dictionary, a condition or a bool mask of {len(obs)} "
            f"items, got an array of {mask.dtype} of shape {mask.shape}"
        )
    return mask
