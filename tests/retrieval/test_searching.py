import tracemalloc

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from spatiagraph.retrieval import NicheIndex, select_rows


def _index(**arguments):
    """Two slides of 100 cells on a 10 x 10 grid with a pitch of 10 µm; niches are columns."""
    rng = np.random.default_rng(0)
    x, y = (10.0 * v.ravel() for v in np.meshgrid(np.arange(10), np.arange(10)))
    slides = []
    for name in ("a", "b"):
        obs = {"slide_id": name, "x_um": x, "y_um": y, "niche": [f"n{int(v) // 20}" for v in x]}
        slides.append(pd.DataFrame(obs, index=[f"cell{i}" for i in range(100)]))
    obs = pd.concat(slides)
    center = {name: rng.normal(size=8) for name in sorted(obs["niche"].unique())}
    z = np.stack([center[n] for n in obs["niche"]]) + 0.1 * rng.normal(size=(200, 8))
    return z, NicheIndex.build(z, obs, **arguments)


LEFT = [(-1, -1), (11, -1), (11, 100), (-1, 100)]  # the two columns of niche n0


def test_a_region_finds_its_niche_elsewhere_and_none_of_its_own_cells():
    _, index = _index()
    rows = index.select(slide="a", region=LEFT)
    assert_array_equal(rows, np.flatnonzero((index.obs["slide_id"] == "a") & (index.obs.x_um < 15)))
    hits = index.search_like(rows, k=20)
    assert set(hits["niche"]) == {"n0"}
    assert set(hits["slide_id"]) == {"b"}
    inside = index.search_like(rows, k=20, include_query=True)
    assert set(inside["row"]) & set(rows)


def test_the_query_of_a_group_is_the_mean_of_its_members():
    z, index = _index(metric="l2")
    rows = index.select(where={"niche": "n3"}, slide="b")
    hits = index.search_like(rows, k=5)
    distance = np.linalg.norm(z - z[rows].mean(0), axis=1)
    distance[rows] = np.inf
    assert_array_equal(hits["row"], np.argsort(distance)[:5])
    assert_allclose(hits["distance"], np.sort(distance)[:5], rtol=1e-4)


def test_the_mean_of_very_many_items_is_exact():
    z = np.full((300_001, 2), [1 / 3, 1.0])
    z[-1] = 0
    hit = NicheIndex.build(z, kind="flat", metric="l2").search_like(np.arange(300_000), k=1)
    assert_allclose(hit["distance"], np.hypot(1 / 3, 1), rtol=1e-6)


def test_many_large_queries_take_little_memory():
    index = NicheIndex.build(np.random.default_rng(0).normal(size=(4000, 4)))
    groups = np.arange(4000).reshape(2, 2000)
    tracemalloc.start()
    hits = index.search_like(np.repeat(groups, 5, axis=0), k=3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (hits["row"] >= 2000).tolist() == [True] * 15 + [False] * 15
    assert peak < 20e6


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_several_queries_leave_out_their_own_items_each(kind):
    z, index = _index(kind=kind)
    rows = np.array([[3, 4], [103, 150], [7, 7]])
    hits = index.search_like(rows, k=6)
    for query, own in enumerate(rows):
        found = hits.loc[hits["query"] == query, "row"]
        assert len(found) == 6
        assert not set(found) & set(own)
    alone = index.search(z[7], k=6, exclude=[7])
    assert_array_equal(hits.loc[hits["query"] == 2, "row"], alone["row"])


def test_what_is_like_some_items_can_be_filtered():
    _, index = _index()
    rows = index.select(cells=["cell0", "cell1"], slide="a")
    assert rows.tolist() == [0, 1]
    hits = index.search_like(rows, k=5, where={"slide_id": "a"}, exclude={"niche": "n0"})
    assert set(hits["slide_id"]) == {"a"}
    assert "n0" not in set(hits["niche"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"cells": "cell7"}, "Cells of a, b are called 'cell7': choose with slide"),
        ({"cells": "Cell7", "slide": "a"}, "a cell of slide 'a', got 'Cell7'. Nearest: 'cell7'"),
        ({"cells": "cell7", "slide": "c"}, "id of a slide, got 'c'. There are: 'a', 'b'"),
        ({"region": LEFT}, "one slide for the region, it could be on a, b"),
        (
            {"region": np.add(LEFT, 500), "slide": "a"},
            "inside the region, got none: cells of a lie at x 0 to 90 and y 0 to 90 µm",
        ),
        ({"where": {"niche": "n9"}}, "'n9'}, got none. Nearest: 'n"),
        ({"where": {"Niche": "n1"}}, "'Niche'. Nearest: 'niche'"),
    ],
)
def test_a_query_that_is_not_there_is_refused(asked, message):
    _, index = _index()
    with pytest.raises(ValueError, match=message.replace("}", r"\}")):
        index.select(**asked)


def test_a_region_needs_places_and_a_search_needs_items():
    index = NicheIndex.build(np.eye(3), pd.DataFrame({"area": [1, 2, 3]}))
    with pytest.raises(ValueError, match="'x_um' and 'y_um' with the items"):
        index.select(region=LEFT)
    with pytest.raises(ValueError, match="at least one item"):
        index.search_like([])
    with pytest.raises(ValueError, match="'k' of at most 2"):
        index.search_like([0], k=3)
    opposite = NicheIndex.build(np.array([[1.0, 0], [-1, 0], [0, 1]]))
    with pytest.raises(ValueError, match="the mean of the query"):
        opposite.search_like([0, 1], k=1)


def test_very_many_cells_are_selected_by_id_and_a_wrong_one_is_named_shortly():
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(20_000)])
    assert_array_equal(select_rows(obs, cells=list(obs.index[::2])), np.arange(0, 20_000, 2))
    with pytest.raises(ValueError, match=r"got 'cel77'\. Nearest: .* and 19,950 more$") as caught:
        select_rows(obs, cells="cel77")
    assert len(str(caught.value)) < 1000
