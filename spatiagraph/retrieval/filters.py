"""Metadata filters: which items of an index may be returned."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Filter = Mapping[str, Any] | str | NDArray[np.bool_]
"""``{column: value or values}``, a pandas query such as ``"age > 50"``, or a bool mask ``[N]``."""


def filter_mask(obs: pd.DataFrame, where: Filter) -> NDArray[np.bool_]:
    """Rows of a table that meet a condition.

    Args:
        obs: Metadata of the items, ``N`` rows.
        where: The condition. All columns of a dictionary must match.

    Returns:
        ``[N]`` bool.

    Raises:
        ValueError: If a column does not exist (suggests the nearest), the query cannot be
            evaluated, or the mask has another length.

    Examples:
        >>> obs = pd.DataFrame({"slide": ["a", "a", "b"], "age": [3, 60, 70]})
        >>> filter_mask(obs, {"slide": "a"}), filter_mask(obs, "age > 50")
        (array([ True,  True, False]), array([False,  True,  True]))
    """
    if isinstance(where, str):
        return _query(obs, where)
    if isinstance(where, Mapping):
        mask = np.ones(len(obs), dtype=bool)
        for column, value in where.items():
            if column not in obs.columns:
                raise ValueError(_unknown(column, obs))
            several = isinstance(value, Collection) and not isinstance(value, str | bytes)
            mask &= obs[column].isin(list(value) if several else [value]).to_numpy()
        return mask
    mask = np.asarray(where)
    if mask.dtype != bool or mask.shape != (len(obs),):
        raise ValueError(
            f"Expected a filter as a dictionary, a pandas query or a bool mask of {len(obs)} "
            f"items, got an array of {mask.dtype} of shape {mask.shape}"
        )
    return mask


def _query(obs: pd.DataFrame, query: str) -> NDArray[np.bool_]:
    try:
        found = obs.eval(query, engine="python", local_dict={}, global_dict={})
    except pd.errors.UndefinedVariableError as err:
        raise ValueError(_unknown(str(err).split("'")[1], obs)) from err
    except (
        SyntaxError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        NotImplementedError,
    ) as err:
        raise ValueError(
            f"Expected a pandas query such as \"cell_type == 'T cell' and area > 50\", got "
            f"{query!r}: {err}"
        ) from err
    if isinstance(found, pd.Series) and isinstance(found.dtype, pd.BooleanDtype):
        found = found.fillna(False)  # what is missing meets no condition, as with NaN
    mask = np.asarray(found)
    if mask.dtype != bool or mask.shape != (len(obs),):
        raise ValueError(f"Expected a condition that is true or false per item, got {query!r}")
    return mask


def _unknown(column: str, obs: pd.DataFrame) -> str:
    columns = [str(c) for c in obs.columns]
    near = difflib.get_close_matches(column, columns, n=3) or columns[:10]
    hint = f"did you mean {', '.join(near)}?" if near else "the index has no metadata"
    return f"Expected a column of the index in the filter, got {column!r}; {hint}"
