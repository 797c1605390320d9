import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from numpy.testing import assert_allclose, assert_array_equal

from spatiagraph.retrieval import NicheIndex

KINDS = ["flat", "ivf", "hnsw"]


def _items(num=600, channels=12, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(8, channels))
    group = rng.integers(8, size=num)
    embeddings = (centers[group] + 0.5 * rng.normal(size=(num, channels))).astype(np.float32)
    obs = pd.DataFrame(
        {
            "slide_id": pd.Categorical(rng.choice(["a", "b", "c"], num, p=[0.6, 0.38, 0.02])),
            "area": rng.uniform(0, 100, num),
        },
        index=[f"cell{i}" for i in range(num)],
    )
    return embeddings, obs


def _brute_force(embeddings, queries, k, metric, mask=None):
    x, q = embeddings.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        x, q = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, q))
        distance = 1 - q @ x.T
    else:
        distance = np.linalg.norm(q[:, None] - x[None], axis=2)
    if mask is not None:
        distance[:, ~mask] = np.inf
    row = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distance, row, 1), row


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_flat_search_equals_a_brute_force_sort(metric):
    embeddings, obs = _items()
    queries = _items(seed=1)[0][:7]
    found = NicheIndex.build(embeddings, obs, kind="flat", metric=metric).search(queries, k=10)
    distance, row = _brute_force(embeddings, queries, 10, metric)
    assert_array_equal(found["row"].to_numpy().reshape(7, 10), row)
    assert_allclose(found["distance"].to_numpy().reshape(7, 10), distance, atol=1e-5)
    assert found["id"].tolist() == obs.index[row.ravel()].tolist()
    assert found["area"].tolist() == obs["area"].iloc[row.ravel()].tolist()
    assert found["rank"].tolist() == list(range(1, 11)) * 7


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_recall_of_approximate_indexes_is_measured_and_reached(kind, metric):
    embeddings, queries = np.split(_items(4100)[0], [4000])
    index = NicheIndex.build(embeddings, kind=kind, metric=metric, min_recall=0.9)
    row = index.search(queries, k=10)["row"].to_numpy().reshape(100, 10)
    true = _brute_force(embeddings, queries, 10, metric)[1]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(row, true, strict=True)])
    assert index.recall >= 0.9
    assert recall == pytest.approx(index.recall, abs=0.1)
    assert f"{index.recall:.3f}" in repr(index)


def test_flat_recall_is_one():
    assert NicheIndex.build(_items()[0], kind="flat").recall == 1.0


def test_recall_counts_duplicates_as_found():
    embeddings = np.repeat(_items(20)[0], 30, axis=0)
    assert NicheIndex.build(embeddings, kind="ivf").recall >= 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "where",
    [
        {"slide_id": "b"},
        {"slide_id": ["a", "c"]},
        {"slide_id": "c"},  # 2 % of the items: approximate search alone would come back short
        "area < 20 and slide_id == 'a'",
        "mask",
    ],
)
def test_k_results_come_back_under_a_filter(kind, where):
    embeddings, obs = _items()
    mask = {
        str({"slide_id": "b"}): obs["slide_id"] == "b",
        str({"slide_id": ["a", "c"]}): obs["slide_id"].isin(["a", "c"]),
        str({"slide_id": "c"}): obs["slide_id"] == "c",
        "area < 20 and slide_id == 'a'": (obs["area"] < 20) & (obs["slide_id"] == "a"),
        "mask": obs["area"] > 97,
    }[str(where)].to_numpy()
    k = min(10, int(mask.sum()))
    index = NicheIndex.build(embeddings, obs, kind=kind, min_recall=1.0)
    found = index.search(embeddings[:5], k=k, where=mask if where == "mask" else where)
    assert mask[found["row"]].all()
    row = _brute_force(embeddings, embeddings[:5], k, "cosine", mask)[1]
    hits = np.mean(np.sort(found["row"].to_numpy().reshape(5, k)) == np.sort(row))
    assert hits == 1.0 if kind == "flat" else hits > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_can_exclude_itself(kind):
    embeddings, obs = _items()
    index = NicheIndex.build(embeddings, obs, kind=kind)
    rows = np.array([3, 50, 599])
    with_self = index.search(embeddings[rows], k=6)
    found = index.search(embeddings[rows], k=5, exclude=rows[:, None])
    assert with_self["row"].to_numpy().reshape(3, 6)[:, 0].tolist() == rows.tolist()
    assert_array_equal(
        found["row"].to_numpy().reshape(3, 5), with_self["row"].to_numpy().reshape(3, 6)[:, 1:]
    )


def test_a_whole_slide_can_be_excluded_together_with_a_filter():
    embeddings, obs = _items()
    index = NicheIndex.build(embeddings, obs)
    found = index.search(embeddings[0], where="area > 50", exclude={"slide_id": "a"})
    assert set(found["slide_id"]) <= {"b", "c"}
    assert (found["area"] > 50).all()


def test_missing_values_meet_no_condition():
    obs = pd.DataFrame({"age": [1, np.nan, 3], "cycle": pd.array([1, None, 3], dtype="Int64")})
    index = NicheIndex.build(np.eye(3), obs)
    for where in ("age > 0", "cycle > 0", "cycle > 0 and age > 0"):
        assert set(index.search(np.ones(3), k=2, where=where)["row"]) == {0, 2}


def test_rows_can_be_excluded_for_all_queries():
    embeddings, _ = _items()
    index = NicheIndex.build(embeddings)
    best = index.search(embeddings[:2], k=3)["row"]
    assert not set(index.search(embeddings[:2], k=3, exclude=list(best))["row"]) & set(best)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_index_answers_as_the_saved_one(kind, tmp_path):
    embeddings, obs = _items(1000)
    index = NicheIndex.build(embeddings, obs, kind=kind, metric="l2")
    loaded = NicheIndex.load(index.save(tmp_path / "deep" / "index"))
    pd.testing.assert_frame_equal(loaded.search(embeddings[:9]), index.search(embeddings[:9]))
    pd.testing.assert_frame_equal(loaded.obs, obs)
    assert repr(loaded) == repr(index)
    files = sorted(p.name for p in (tmp_path / "deep" / "index").iterdir())
    assert files == ["config.json", "index.faiss", "obs.parquet"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["index"]


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_append_equals_build(kind):
    embeddings, obs = _items()
    whole = NicheIndex.build(embeddings, obs, kind=kind, min_recall=0.5)
    grown = NicheIndex.build(embeddings[:400], obs[:400], kind=kind, min_recall=0.5)
    grown.append(embeddings[400:], obs[400:])
    pd.testing.assert_frame_equal(grown.search(embeddings[::50]), whole.search(embeddings[::50]))


def test_append_to_inverted_lists_finds_old_and_new_items():
    embeddings, obs = _items()
    index = NicheIndex.build(embeddings[:400], obs[:400], kind="ivf")
    index.vectors([0])
    index.append(embeddings[400:], obs[400:])
    found = index.search(embeddings, k=1)
    assert_array_equal(found["row"], np.arange(600))
    assert_allclose(
        index.vectors([599])[0] * np.linalg.norm(embeddings[599]), embeddings[599], 1e-5
    )


def test_append_of_other_items_leaves_the_index_as_it_was():
    embeddings, obs = _items()
    index = NicheIndex.build(embeddings, obs)
    broken = embeddings.copy()
    broken[17] = np.nan
    with pytest.raises(ValueError, match="1 row: 17"):
        index.append(broken, obs)
    with pytest.raises(ValueError, match=r"columns \['slide_id', 'area'\]"):
        index.append(embeddings)
    assert len(index) == len(index.obs) == 600


def test_order_of_items_does_not_change_what_is_found():
    embeddings, obs = _items()
    perm = np.random.default_rng(0).permutation(600)
    a = NicheIndex.build(embeddings, obs).search(embeddings[:20])
    b = NicheIndex.build(embeddings[perm], obs.iloc[perm]).search(embeddings[:20])
    assert a["id"].tolist() == b["id"].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_index(kind):
    embeddings, _ = _items(3000)
    queries = _items(50, seed=5)[0]
    first, second = (NicheIndex.build(embeddings, kind=kind, seed=4) for _ in range(2))
    pd.testing.assert_frame_equal(first.search(queries), second.search(queries))
    assert first.recall == second.recall


def test_slides_are_joined_with_their_name_and_place():
    embeddings, obs = _items(30)
    slides = {}
    for name, rows in {"s1": slice(0, 10), "s2": slice(10, 30)}.items():
        adata = AnnData(np.ones((len(embeddings[rows]), 2), np.float32), obs=obs[rows])
        adata.obsm["X_context"] = embeddings[rows]
        adata.obsm["spatial"] = np.arange(2.0 * adata.n_obs).reshape(-1, 2)
        slides[name] = adata
    index = NicheIndex.from_slides(slides, "X_context", metric="l2")
    found = index.search(embeddings[12], k=1)
    assert found[["id", "slide_id", "x_um", "y_um"]].to_numpy().tolist() == [
        ["cell12", "s2", 4.0, 5.0]
    ]
    with pytest.raises(ValueError, match=r"obsm\['X_other'\] in slide 's1', found \['X_context'"):
        NicheIndex.from_slides(slides, "X_other")
    with pytest.raises(ValueError, match="pass a dictionary"):
        NicheIndex.from_slides(list(slides.values()), "X_context")


def test_tensors_and_lists_are_accepted():
    embeddings, _ = _items(50)
    index = NicheIndex.build(torch.from_numpy(embeddings))
    assert index.search(embeddings[4].tolist(), k=1)["row"].item() == 4


def test_embeddings_are_not_modified():
    embeddings, _ = _items(50)
    before = embeddings.copy()
    NicheIndex.build(embeddings).search(embeddings)
    assert_array_equal(embeddings, before)


def test_auto_grows_with_the_number_of_items():
    from spatiagraph.retrieval.backend import choose_kind

    assert [choose_kind(n) for n in (1, 100_000, 100_001, 10**6, 10**6 + 1)] == [
        "flat",
        "flat",
        "ivf",
        "ivf",
        "hnsw",
    ]


def test_a_metadata_column_may_be_called_like_a_result():
    embeddings, obs = _items(20)
    found = NicheIndex.build(embeddings, obs.rename(columns={"area": "rank"})).search(embeddings[0])
    assert found["rank"].tolist() == list(range(1, 11))
    assert "rank_obs" in found


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i, x: i.search(x[0], k=601), "'k' of at most 600"),
        (lambda i, x: i.search(x[0], k=600, exclude=np.array([[0]])), "'k' of at most 599"),
        (lambda i, x: i.search(x[0], k=0), "'k' of at least 1"),
        (lambda i, x: i.search(x[0], k=50, where={"slide_id": "c"}), "at most 1[0-9], the number"),
        (lambda i, x: i.search(x[0, :5]), "12 channels as in the index, got 5"),
        (lambda i, x: i.search(x[:3] * np.nan), "infinity in 3 rows: 0, 1, 2"),
        (lambda i, x: i.search(x[0] * 0), "only zeros in 1 row: 0"),
        (lambda i, x: i.search(x[0] * np.float64(1e60)), "infinity in 1 row: 0"),
        (lambda i, x: i.search(x[0] * np.float64(1e-60)), "only zeros in 1 row: 0"),
        (lambda i, x: i.search(x[0], where={"slide": "a"}), "'slide'. Nearest: 'slide_id'"),
        (lambda i, x: i.search(x[0], where="aera > 3"), "'aera'. Nearest: 'area'"),
        (lambda i, x: i.search(x[0], where="area >"), "condition such as"),
        (lambda i, x: i.search(x[0], where="area['a'] > 1"), "condition such as"),
        (
            lambda i, x: i.search(x[0], where="area + 1"),
            "the end, got '\\+', at character 6",
        ),
        (lambda i, x: i.search(x[0], where={"slide_id": "d"}), "meet where={'slide_id': 'd'}"),
        (lambda i, x: i.search(x[0], where=np.ones(3, bool)), "bool mask of 600 items"),
        (lambda i, x: i.search(x[0], exclude=[600]), r"rows in \[0, 600\), got \[600\]"),
        (lambda i, x: i.search(x[:3], exclude=[[1], [2]]), r"\[3, R\] \(one row per query\)"),
        (lambda i, x: NicheIndex.build(x, i.obs[:5]), "got 5 for 600"),
        (lambda i, x: NicheIndex.build(x[:0]), "at least one embedding"),
        (lambda i, x: NicheIndex.build(x[0]), r"shape \[N, D\]"),
        (lambda i, x: NicheIndex.build(x, kind="exact"), "auto, flat, ivf or hnsw"),
        (lambda i, x: NicheIndex.build(x, metric="dot"), "cosine or l2"),
        (lambda i, x: NicheIndex.build(x, min_recall=np.nan), "'min_recall' between 0 and 1"),
    ],
)
def test_mistakes_are_told(call, message):
    embeddings, obs = _items()
    with pytest.raises(ValueError, match=message):
        call(NicheIndex.build(embeddings, obs), embeddings)


def test_nan_embeddings_are_refused_by_row():
    embeddings, _ = _items()
    embeddings[[3, 70, 71, 72, 73, 74], 0] = np.inf
    with pytest.raises(ValueError, match="6 rows: 3, 70, 71, 72, 73, …"):
        NicheIndex.build(embeddings)


def test_only_an_index_is_replaced_or_loaded(tmp_path):
    embeddings, obs = _items(30)
    index = NicheIndex.build(embeddings, obs)
    index.save(tmp_path / "index")
    index.append(embeddings, obs)
    index.save(tmp_path / "index")
    assert len(NicheIndex.load(tmp_path / "index")) == 60

    other = tmp_path / "thesis"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"format": "else"}))
    with pytest.raises(FileExistsError, match="holds something else"):
        index.save(other)
    with pytest.raises(ValueError, match="is not one"):
        NicheIndex.load(other)
    with pytest.raises(FileNotFoundError, match="no '.*nowhere'"):
        NicheIndex.load(tmp_path / "nowhere")
    (tmp_path / "index" / "index.faiss").write_bytes(b"not an index")
    with pytest.raises(ValueError, match="damaged"):
        NicheIndex.load(tmp_path / "index")


def test_an_index_without_metadata_is_saved_and_loaded(tmp_path):
    index = NicheIndex.build(np.eye(3))
    loaded = NicheIndex.load(index.save(tmp_path / "index"))
    pd.testing.assert_frame_equal(loaded.search(np.eye(3), k=2), index.search(np.eye(3), k=2))


def test_a_save_that_fails_at_the_end_leaves_the_older_index(tmp_path, monkeypatch):
    path = NicheIndex.build(np.eye(3)).save(tmp_path / "index")

    def replace(source, target, move=os.replace):
        if str(source).endswith("new"):
            raise PermissionError("no")
        move(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PermissionError):
        NicheIndex.build(np.eye(4)).save(path)
    assert len(NicheIndex.load(path)) == 3
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


@pytest.mark.parametrize("part", ["calibration.npz", "obs.parquet", "index.faiss"])
def test_an_index_that_lost_a_part_is_damaged(part, tmp_path):
    embeddings, obs = _items(50)
    path = NicheIndex.build(embeddings, obs, calibrate="slide").save(tmp_path / "index")
    (path / part).unlink()
    with pytest.raises(ValueError, match="damaged"):
        NicheIndex.load(path)


def test_mixed_columns_are_refused_and_nothing_is_left(tmp_path):
    obs = pd.DataFrame({"note": ["a", 1, None]})
    with pytest.raises(ValueError, match="note"):
        NicheIndex.build(np.eye(3), obs).save(tmp_path / "index")
    assert not list(tmp_path.iterdir())
