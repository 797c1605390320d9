"""Hits that are other places than the query, on items whose answer is known."""

import numpy as np
import pandas as pd

from spatiagraph.retrieval import NicheIndex, Query, find_hits


def test_hits_are_not_at_the_rim_unless_the_query_is():
    """The most similar cells lie at the rim of a square of tissue."""
    x, y = np.meshgrid(np.arange(20.0), np.arange(20.0))
    obs = pd.DataFrame({"slide_id": "a", "x_um": 10 * x.ravel(), "y_um": 10 * y.ravel()})
    rim = ((obs[["x_um", "y_um"]] < 10) | (obs[["x_um", "y_um"]] > 180)).any(axis=1).to_numpy()
    z = np.stack([np.ones(400), np.where(rim, 0.0, np.linspace(0.1, 1, 400))], 1)
    index = NicheIndex.build(z, obs)
    options = {"level": "niche", "group": "none", "where": None, "apart_um": 40.0}
    inside, at_rim = 210, 5
    found = find_hits(index, Query("it", obs, np.array([inside]), np.array([inside])), 3, **options)
    assert not rim[found["row"]].any()
    found = find_hits(index, Query("it", obs, np.array([at_rim]), np.array([at_rim])), 3, **options)
    assert rim[found["row"]].all()


def test_hits_apart_are_found_beyond_the_surroundings_of_the_best():
    """A clump of 3,000 cells holds all that is most like the query; three others lie far away."""
    rng = np.random.default_rng(0)
    clump = rng.uniform(1000, 1100, size=(3000, 2))
    pos = np.concatenate([[[0, 0]], clump, [[5000, 0], [0, 5000], [9000, 0]]])
    z = np.zeros((len(pos), 3))
    z[:, 0], z[1:-3, 1], z[-3:, 2] = 1, rng.uniform(0, 0.01, 3000), [0.2, 0.3, 0.4]
    obs = pd.DataFrame({"slide_id": "a", "x_um": pos[:, 0], "y_um": pos[:, 1]})
    index = NicheIndex.build(z, obs)
    query = Query("it", obs, np.array([0]), np.array([0]))
    options = {"level": "niche", "group": "none", "where": None}
    hits = find_hits(index, query, 3, apart_um=500, max_distance=1, **options)
    assert hits["row"].tolist()[1:] == [3001, 3002]
    assert hits["rank"].tolist() == [1, 2, 3]


def test_cells_without_a_region_are_found_one_by_one():
    obs = pd.DataFrame({"slide_id": "a", "context_tissue": [0, 0, np.nan, np.nan, -1, -1]})
    index = NicheIndex.build(np.stack([np.ones(6), np.arange(6)], 1), obs)
    query = Query("it", obs, np.array([0]), np.array([0]))
    hits = find_hits(
        index,
        query,
        4,
        level="tissue",
        group="context_tissue",
        where=None,
        apart_um=0,
        max_distance=1,
    )
    assert hits["row"].tolist() == [2, 3, 4, 5]
