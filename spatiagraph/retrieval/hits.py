"""``find_hits``: each niche once, apart from each other, and none that is unlike the query."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from spatiagraph import keys
from spatiagraph.retrieval.apart import at_rim, hits_apart, near_to, usual_distance
from spatiagraph.retrieval.filters import Filter, filter_mask
from spatiagraph.retrieval.index import NicheIndex
from spatiagraph.retrieval.query import Query


def find_hits(
    index: NicheIndex,
    query: Query,
    k: int,
    *,
    level: str,
    group: str,
    where: Filter | None = None,
    apart_um: float = 0.0,
    max_distance: float | None = None,
) -> pd.DataFrame:
    """The ``k`` items most like a query, each niche or region once, ranked from 1.

    Where hits are to lie apart, cells at the rim of the tissue are none, unless the query is one.

    Args:
        index: What is searched.
        query: What for.
        k: Most hits.
        level: What is compared, for messages.
        group: Column that says which niche or region a cell shares with others.
        where: Condition that hits meet.
        apart_um: Least distance of hits to the query and to each other.
        max_distance: Distance of embeddings beyond which cells are no hits; by default that within
            which a quarter of all cells lie that meet the condition.

    Raises:
        ValueError: If nothing is left to find, or there are no ``k`` other cells.
    """
    if k > index.num_items - len(query.items):
        raise ValueError(
            f"Expected 'k' of at most {index.num_items - len(query.items)}, the number of other "
            f"cells, got {k}"
        )
    shared = _shared(index.obs, group)
    allowed = ~np.isin(shared, shared[query.items])
    if not allowed.any():
        raise ValueError(f"Expected a {level} beside that of {query.name}, all cells share it")
    meets = np.ones(index.num_items, dtype=bool)
    if where is not None:
        meets = filter_mask(index.obs, where)
        allowed &= meets
    if apart_um > 0:
        allowed &= ~near_to(index.obs, query.obs.iloc[query.chosen], apart_um)
        rim = at_rim(index.obs, apart_um / 2)
        asks_from_inside = not at_rim(query.obs, apart_um / 2)[query.chosen].all()
        if asks_from_inside and (allowed & ~rim).any():
            allowed &= ~rim
    if not allowed.any():
        asked = (
            [f"meet {where if isinstance(where, str | dict) else 'the mask'!r}"]
            if where is not None
            else []
        )
        asked += [f"lie {apart_um:.3g} µm from it (apart_um=)"] if apart_um > 0 else []
        raise ValueError(
            f"Expected a {level} beside that of {query.name} with cells that "
            f"{' and '.join(asked)}, got none"
        )

    def search(number: int, among: NDArray[np.bool_]) -> pd.DataFrame:
        return _search(index, query, number, among)

    if max_distance is None:
        max_distance = usual_distance(search, meets)
    hits = hits_apart(
        search,
        index.obs,
        k,
        allowed,
        apart_um=apart_um,
        groups=shared,
        max_distance=max_distance,
    )
    if not len(hits):
        raise ValueError(
            f"Expected a {level} like that of {query.name}, the nearest is further away than a "
            "quarter of all cells: ask for a larger max_distance="
        )
    return hits


def _search(index: NicheIndex, query: Query, k: int, allowed: NDArray[np.bool_]) -> pd.DataFrame:
    """The ``k`` allowed items most like the mean of a query."""
    if query.embeddings is None:
        return index.search_like(query.items, k, where=allowed, include_query=True)
    chosen = query.embeddings[query.chosen]
    vector = _mean_direction(chosen) if index.calibration is None else chosen.mean(0)
    return index.search(vector, k, where=allowed, slide=query.embeddings)


def _shared(obs: pd.DataFrame, group: str) -> NDArray[np.int64]:
    """Number of the niche or region of each cell, ``[N]``; a number of its own without one."""
    if group not in obs:
        return np.arange(len(obs))
    number = obs.groupby([keys.SLIDE_ID, group], observed=True, dropna=False).ngroup().to_numpy()
    alone = obs[group].isna().to_numpy() | (obs[group] == -1).to_numpy()
    return np.where(alone, number.max() + 1 + np.arange(len(obs)), number)


def _mean_direction(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of vectors of length one, ``[D]``."""
    length = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.where(length > 0, length, 1)).mean(0)
