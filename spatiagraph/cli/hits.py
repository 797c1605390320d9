"""What ``search`` finds: each niche once, and apart from each other if asked."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from spatiagraph import keys
from spatiagraph.cli.query import Query

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
    hidden = np.isin(shared, shared[query.items])
    largest = int(np.bincount(shared).max())
    left = len(shared) - int(hidden.sum())
    if left == 0:
        raise ValueError(f"Expected a {level} beside that of {query.name}, all cells share it")
    if apart_um > 0:
        hidden |= _near(index.obs, query.obs.iloc[query.chosen], apart_um)
        left = len(shared) - int(hidden.sum())
    many = largest > 1 or apart_um > 0
    if many and where is not None:
        from spatiagraph.retrieval.filters import filter_mask

        left = int((~hidden & filter_mask(index.obs, where)).sum())
    wanted = min(max(k * largest, 100 * k if apart_um > 0 else 0), left) if many else k
    wanted = max(wanted, 1)  # the index says what is wrong with none
    if query.embeddings is None:
        hits = index.search_like(query.items, wanted, where=where, exclude=hidden)
    else:
        vector = _mean_direction(query.embeddings[query.chosen])
        if index.calibration is not None:
            vector = query.embeddings[query.chosen].mean(0)
        hits = index.search(vector, wanted, where=where, exclude=hidden, slide=query.embeddings)
    _, place = np.unique(shared[hits["row"]], return_index=True)
    hits = hits.iloc[np.sort(place)]
    if apart_um > 0:
        hits = hits[_thinned(hits, apart_um)]
    return hits[:k].assign(rank=range(1, min(k, len(hits)) + 1))


def _shared(obs: pd.DataFrame, group: str) -> "NDArray[np.int64]":
    """Number of the niche or region of each cell, ``[N]``; a number of its own without one."""
    if group not in obs:
        return np.arange(len(obs))
    number = obs.groupby([keys.SLIDE_ID, group], observed=True, dropna=False).ngroup().to_numpy()
    alone = (obs[group] == -1).to_numpy()
    return np.where(alone, number.max() + 1 + np.arange(len(obs)), number)


def _near(obs: pd.DataFrame, query: pd.DataFrame, apart_um: float) -> "NDArray[np.bool_]":
    """Items closer to the query than allowed, on its slide, ``[N]``."""
    from scipy.spatial import cKDTree

    near = np.zeros(len(obs), dtype=bool)
    for name, part in query.groupby(query[keys.SLIDE_ID].astype(str)):
        own = np.flatnonzero(obs[keys.SLIDE_ID].astype(str) == name)
        if len(own):
            tree = cKDTree(part[["x_um", "y_um"]].to_numpy())
            away, _ = tree.query(obs[["x_um", "y_um"]].to_numpy()[own])
            near[own] = away < apart_um
    return near


def _thinned(hits: pd.DataFrame, apart_um: float) -> "NDArray[np.bool_]":
    """Hits far enough from all better ones on their slide, ``[K]``."""
    pos, slide = hits[["x_um", "y_um"]].to_numpy(), hits[keys.SLIDE_ID].astype(str).to_numpy()
    kept: list[int] = []
    for row in range(len(hits)):
        rivals = [i for i in kept if slide[i] == slide[row]]
        if (np.linalg.norm(pos[rivals] - pos[row], axis=1) >= apart_um).all():
            kept.append(row)
    return np.isin(np.arange(len(hits)), kept)


def _mean_direction(embeddings: "NDArray[np.float32]") -> "NDArray[np.float32]":
    """Mean of vectors of length one, ``[D]``."""
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.where(length > 0, length, 1)).mean(0)
