"""Hits that lie apart in the tissue."""

import numpy as np
import pandas as pd
import pytest

from spatiagraph.retrieval import NicheIndex
from spatiagraph.retrieval.apart import at_rim, inner_cells, usual_distance


def line(num=100, step=10.0, slide="a"):
    """Cells in a row, whose embeddings turn from one to the next."""
    angle = np.linspace(0, np.pi / 2, num)
    obs = pd.DataFrame(
        {"slide_id": slide, "x_um": np.arange(num) * step, "y_um": 0.0},
        index=[f"cell{i}" for i in range(num)],
    )
    return NicheIndex.build(np.stack([np.cos(angle), np.sin(angle)], 1), obs)


def test_hits_are_the_nearest_in_embedding_that_lie_apart():
    hits = line().search_like([20], 4, apart_um=50)
    assert hits["row"].tolist() == [15, 25, 10, 30] or hits["row"].tolist() == [25, 15, 30, 10]
    assert hits["rank"].tolist() == [1, 2, 3, 4]
    assert (np.diff(hits["distance"]) >= -1e-6).all()


def test_hits_end_where_the_tissue_does_or_where_it_is_unlike_the_query():
    assert len(line().search_like([0], 50, apart_um=300)) == 3
    near = line().search_like([0], 50, apart_um=50, max_distance=0.02)
    assert len(near) == 2
    assert (near["distance"] <= 0.02).all()
    assert len(line().search_like([0], 5, apart_um=50, max_distance=0)) == 0


def test_the_same_place_on_another_slide_is_another_place():
    first, second = line(), line(slide="b")
    both = NicheIndex.build(
        np.concatenate([i.vectors(np.arange(100)) for i in (first, second)]),
        pd.concat([first.obs, second.obs]),
    )
    assert both.search_like([20], 1, apart_um=1e6)["row"].item() == 120


def test_what_lies_apart_needs_places_and_one_query():
    bare = NicheIndex.build(np.eye(3))
    with pytest.raises(ValueError, match="no slide_id, x_um, y_um in obs"):
        bare.search_like([0], 1, apart_um=5)
    with pytest.raises(ValueError, match="2 queries"):
        line().search_like([[0], [1]], 1, apart_um=5)


def test_a_quarter_of_all_items_lie_within_the_usual_distance():
    index = line()

    def ask(k, among):
        return index.search_like([0], k, where=among, include_query=True)

    far = usual_distance(ask, np.ones(100, dtype=bool))
    distance = index.search_like([0], 100, include_query=True)["distance"]
    assert (distance <= far + 1e-7).sum() == 25


def test_the_rim_is_where_a_side_has_no_tissue():
    x, y = np.meshgrid(np.arange(11.0), np.arange(11.0))
    pos = np.stack([x, y], -1).reshape(-1, 2) * 10
    obs = pd.DataFrame({"slide_id": "a", "x_um": pos[:, 0], "y_um": pos[:, 1]})
    other = obs.assign(slide_id="b", x_um=obs["x_um"] + 60)
    rim = at_rim(pd.concat([obs, other]), 30)
    np.testing.assert_array_equal(rim[:121], rim[121:])  # slides know nothing of each other
    np.testing.assert_array_equal(rim[:121], ~inner_cells(pos, 30))


def test_inner_cells_have_tissue_on_every_side():
    pos = np.stack(np.meshgrid(np.arange(11.0), np.arange(11.0)), -1).reshape(-1, 2) * 10
    inner = inner_cells(pos, 30)
    expected = ((pos >= 20) & (pos <= 80)).all(1)
    np.testing.assert_array_equal(inner[expected], True)
    np.testing.assert_array_equal(inner[(pos < 10).any(1)], False)
