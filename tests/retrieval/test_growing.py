import faiss
import numpy as np
import pytest
from anndata import AnnData
from numpy.testing import assert_array_equal

from spatiagraph.retrieval import NicheIndex


def _slide(seed, weights="1234", num=50):
    rng = np.random.default_rng(seed)
    adata = AnnData(np.ones((num, 2), np.float32))
    adata.obsm["X_context_niche"] = rng.normal(size=(num, 6)).astype(np.float32)
    adata.obsm["X_pca"] = rng.normal(size=(num, 6)).astype(np.float32)
    adata.obsm["spatial"] = rng.uniform(0, 100, size=(num, 2))
    adata.uns["spatiagraph"] = {"name": "context", "embed": {"weights_hash": weights}}
    return adata


def test_slides_are_added_to_a_saved_index_as_if_they_had_been_there(tmp_path):
    slides = {name: _slide(i) for i, name in enumerate("abc")}
    whole = NicheIndex.from_slides(slides, "X_context_niche")
    NicheIndex.from_slides({"a": slides["a"]}, "X_context_niche").save(tmp_path / "index")
    grown = NicheIndex.load(tmp_path / "index")
    grown.append_slides({name: slides[name] for name in "bc"})
    query = slides["b"].obsm["X_context_niche"][:3]
    assert_array_equal(grown.search(query)["row"], whole.search(query)["row"])
    assert grown.obs["slide_id"].tolist() == whole.obs["slide_id"].tolist()


def test_slides_of_another_model_are_refused_and_nothing_is_added(tmp_path):
    a, b = _slide(0), _slide(1, weights="5678")
    with pytest.raises(ValueError, match="with one model, got a by 1234; b by 5678"):
        NicheIndex.from_slides({"a": a, "b": b}, "X_context_niche")
    index = NicheIndex.from_slides({"a": a}, "X_context_niche")
    index = NicheIndex.load(index.save(tmp_path / "index"))
    with pytest.raises(ValueError, match="model 1234 as in the index, got some of 5678"):
        index.append_slides({"b": b})
    b.obsm["X_context_niche"] = b.obsm["X_context_niche"][:, :5]
    with pytest.raises(ValueError, match="6 channels as in the index, got 5"):
        index.append_slides({"b": b})
    with pytest.raises(ValueError, match="not in the index, got a"):
        index.append_slides({"a": a})
    assert len(index) == len(index.obs) == 50


def test_other_embeddings_of_such_slides_have_no_model():
    index = NicheIndex.from_slides({"a": _slide(0), "b": _slide(1, weights="5678")}, "X_pca")
    assert index.model is None
    index.append_slides({"c": _slide(2, weights="9")})
    assert len(index) == 150


def test_cells_without_a_niche_are_left_out():
    slides = {name: _slide(i) for i, name in enumerate("ab")}
    slides["a"].obsm["X_context_niche"][[3, 7]] = np.nan
    index = NicheIndex.from_slides(slides, "X_context_niche")
    assert len(index) == len(index.obs) == 98
    rows = index.select(slide="a", cells=["4", "8"])
    norm = np.linalg.norm(slides["a"].obsm["X_context_niche"][[4, 8]], axis=1, keepdims=True)
    np.testing.assert_allclose(
        index.vectors(rows) * norm, slides["a"].obsm["X_context_niche"][[4, 8]], rtol=1e-5
    )
    slides["a"].obsm["X_context_niche"][5, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity in 1 row"):
        NicheIndex.from_slides(slides, "X_context_niche")


def test_an_index_without_slides_cannot_be_given_any():
    with pytest.raises(ValueError, match="index built from slides"):
        NicheIndex.build(np.eye(3)).append_slides({"a": _slide(0)})


def _num_lists(index, folder):
    return faiss.read_index(str(index.save(folder) / "index.faiss")).nlist


def test_inverted_lists_are_laid_out_anew_only_when_asked(tmp_path):
    rng = np.random.default_rng(0)
    old = rng.normal(size=(1000, 8)).astype(np.float32)
    new = rng.normal(size=(3000, 8)).astype(np.float32) + 5
    kept, anew = (NicheIndex.build(old, kind="ivf", metric="l2") for _ in range(2))
    before = _num_lists(kept, tmp_path)
    kept.append(new)
    anew.append(new, retrain=True)
    assert _num_lists(kept, tmp_path) == before
    assert _num_lists(anew, tmp_path) > before
    assert anew.recall >= 0.95
    np.testing.assert_array_equal(anew.vectors([3, 3999]), np.stack([old[3], new[-1]]))
    whole = NicheIndex.build(np.concatenate([old, new]), metric="l2")
    assert_array_equal(anew.search(new[::100], k=1)["row"], whole.search(new[::100], k=1)["row"])
