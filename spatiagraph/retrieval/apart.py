"""Hits that lie apart in the tissue, so that no two show the same niche."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from spatiagraph import keys
from spatiagraph.retrieval.selection import X_UM, Y_UM

Search = Callable[[int, NDArray[np.bool_]], pd.DataFrame]
"""The ``k`` items most like a query, of those that are allowed."""
_SAMPLE = 2000  # items that say how far a query is from all


def hits_apart(
    search: Search,
    obs: pd.DataFrame,
    k: int,
    allowed: NDArray[np.bool_],
    *,
    apart_um: float = 0.0,
    groups: NDArray[np.int64] | None = None,
    max_distance: float = np.inf,
) -> pd.DataFrame:
    """The items most like a query that lie apart from each other.

    Args:
        search: Finds items.
        obs: Metadata of the items, ``N`` rows, with ``slide_id``, ``x_um`` and ``y_um``.
        k: Most hits.
        allowed: Items that may be found, ``[N]``.
        apart_um: Least distance of hits of one slide.
        groups: Group of each item ``[N]``, of which no two hits share one.
        max_distance: Distance of embeddings beyond which items are no hits.

    Returns:
        A row per hit, ranked from 1, nearest first; fewer than ``k`` where the tissue has no more,
        and none if nothing is allowed.
    """
    free, found = allowed.copy(), list[pd.DataFrame]()
    while len(found) < k and free.any():
        hit = search(1, free)
        if hit["distance"].item() > max_distance:
            break
        found.append(hit)
        row = hit["row"].item()
        free[row] = False
        if groups is not None:
            free &= groups != groups[row]
        if apart_um > 0:
            free &= ~near_to(obs, obs.iloc[[row]], apart_um)
    if not found:
        return search(1, allowed)[:0] if allowed.any() else pd.DataFrame()
    return pd.concat(found, ignore_index=True).assign(rank=range(1, len(found) + 1))


def near_to(obs: pd.DataFrame, cells: pd.DataFrame, apart_um: float) -> NDArray[np.bool_]:
    """Items closer than a distance to some cells of their slide, ``[N]``.

    Args:
        obs: Metadata of the items, ``N`` rows.
        cells: Metadata of the cells.
        apart_um: The distance.
    """
    near = np.zeros(len(obs), dtype=bool)
    own_slide = obs[keys.SLIDE_ID].astype(str).to_numpy()
    for name, part in cells.groupby(cells[keys.SLIDE_ID].astype(str)):
        own = np.flatnonzero(own_slide == name)
        if len(own):
            tree = cKDTree(part[[X_UM, Y_UM]].to_numpy())
            away, _ = tree.query(obs[[X_UM, Y_UM]].to_numpy()[own])
            near[own] = away < apart_um
    return near


def at_rim(obs: pd.DataFrame, margin_um: float) -> NDArray[np.bool_]:
    """Items with no tissue on some side of them, ``[N]``.

    Args:
        obs: Metadata of the items, ``N`` rows.
        margin_um: How far the surroundings reach.
    """
    rim = np.zeros(len(obs), dtype=bool)
    slide, pos = obs[keys.SLIDE_ID].astype(str).to_numpy(), obs[[X_UM, Y_UM]].to_numpy(float)
    for name in np.unique(slide):
        own = np.flatnonzero(slide == name)
        rim[own] = ~inner_cells(pos[own], margin_um)
    return rim


def inner_cells(pos: NDArray[np.floating], margin_um: float) -> NDArray[np.bool_]:
    """Cells whose surroundings are all tissue, ``[N]``: some lie beyond the margin on each side."""
    tree = cKDTree(pos)
    inside = np.ones(len(pos), dtype=bool)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        away, _ = tree.query(pos + np.array([dx, dy]) * margin_um)
        inside &= away < margin_um / 2
    return inside


def usual_distance(
    search: Search, among: NDArray[np.bool_], share: float = 0.25, seed: int = 0
) -> float:
    """Distance within which a share of items is like a query, on a sample of them.

    Args:
        search: Finds items.
        among: The items, ``[N]``.
        share: The share.
        seed: Seed of the sample.
    """
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(among))[:_SAMPLE]
    sample = np.zeros(len(among), dtype=bool)
    sample[drawn] = True
    distance = search(len(drawn), sample)["distance"].to_numpy()
    return float(distance[max(1, round(share * len(distance))) - 1])
