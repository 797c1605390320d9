"""Hits of ``search``: each niche once, and apart from each other if asked."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatiagraph import keys
from spatiagraph.cli.query import Query
from spatiagraph.retrieval.filters import filter_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spatiagraph.retrieval.index import NicheIndex


def find_hits(
    index: "NicheIndex",
    query: Query,
    k: int,
    *,
    level: str,
    group: str,
    where: str | None,
    apart_um: float,
) -> pd.DataFrame:
    """The ``k`` items most like a query, each niche or region once, ranked from 1.

    Args:
        index: What is searched.
        query: What for.
        k: Most hits.
        level: What is compared, for messages.
        group: Column that says which niche or region a cell shares with others.
        where: Condition that hits meet.
        apart_um: Least distance of hits to the query and to each other.

    Raises:
        ValueError: If nothing is left to find.
    """
    shared = _shared(index.obs, group)
    allowed = ~np.isin(shared, shared[query.items])
    if not allowed.any():
        raise ValueError(f"Expected a {level} beside that of {query.name}, all cells share it")
    if where is not None:
        allowed &= filter_mask(index.obs, where)
    if apart_um > 0:
        allowed &= ~_near(index.obs, query.obs.iloc[query.chosen], apart_um)
    if not allowed.any():
        asked = [f"meet {where!r}"] if where is not None else []
        asked += [f"lie {apart_um:g} µm from it"] if apart_um > 0 else []
        raise ValueError(
            f"Expected a {level} beside that of {query.name} with cells that "
            f"{' and '.join(asked)}, got none"
        )
    if apart_um == 0 and len(np.unique(shared)) == len(shared):
        return _search(index, query, k, allowed)
    found: list[pd.DataFrame] = []
    while len(found) < k and allowed.any():
        found.append(_search(index, query, 1, allowed))
        row = found[-1]["row"].item()
        allowed &= shared != shared[row]
        if apart_um > 0:
            allowed &= ~_near(index.obs, index.obs.iloc[[row]], apart_um)
    return pd.concat(found, ignore_index=True).assign(rank=range(1, len(found) + 1))


def _search(
    index: "NicheIndex", query: Query, k: int, allowed: "NDArray[np.bool_]"
) -> pd.DataFrame:
    """The ``k`` allowed items most like the mean of a query."""
    if query.embeddings is None:
        return index.search_like(query.items, k, where=allowed)
    chosen = query.embeddings[query.chosen]
    vector = _mean_direction(chosen) if index.calibration is None else chosen.mean(0)
    return index.search(vector, k, where=allowed, slide=query.embeddings)


def _shared(obs: pd.DataFrame, group: str) -> "NDArray[np.int64]":
    """Number of the niche or region of each cell, ``[N]``; a number of its own without one."""
    if group not in obs:
        return np.arange(len(obs))
    number = obs.groupby([keys.SLIDE_ID, group], observed=True, dropna=False).ngroup().to_numpy()
    alone = obs[group].isna().to_numpy() | (obs[group] == -1).to_numpy()
    return np.where(alone, number.max() + 1 + np.arange(len(obs)), number)


def _near(obs: pd.DataFrame, cells: pd.DataFrame, apart_um: float) -> "NDArray[np.bool_]":
    """Items closer than allowed to some cells, on their slide, ``[N]``."""
    from scipy.spatial import cKDTree

    near = np.zeros(len(obs), dtype=bool)
    for name, part in cells.groupby(cells[keys.SLIDE_ID].astype(str)):
        own = np.flatnonzero(obs[keys.SLIDE_ID] == name)
        if len(own):
            tree = cKDTree(part[["x_um", "y_um"]].to_numpy())
            away, _ = tree.query(obs[["x_um", "y_um"]].to_numpy()[own])
            near[own] = away < apart_um
    return near


def _mean_direction(embeddings: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Mean of vectors of length one, ``[D]``."""
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.where(length > 0, length, 1)).mean(0)
