import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from spatiagraph.retrieval import NicheIndex, SlideCalibration


def _two_batches(shift=3.0, seed=0):
    """The same five niches on two slides that differ in an offset and in scale."""
    rng = np.random.default_rng(seed)
    center = rng.normal(size=(5, 16))
    niche = np.tile(np.repeat(np.arange(5), 40), 2)
    slide = np.repeat(["a", "b"], 200)
    z = center[niche] + 0.6 * rng.normal(size=(400, 16))
    z[200:] = 1.7 * z[200:] + shift * rng.normal(size=16)
    obs = pd.DataFrame({"slide_id": slide, "niche": niche})
    return z.astype(np.float32), obs


def _from_other_slide(index, obs):
    hits = index.search_like(np.arange(400)[:, None], k=10)
    query = hits["query"].to_numpy()
    other = hits["slide_id"].to_numpy() != obs["slide_id"].to_numpy()[query]
    same = hits["niche"].to_numpy() == obs["niche"].to_numpy()[query]
    return other.mean(), (same & other).sum() / max(1, other.sum())


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_calibrated_hits_come_from_other_slides_too_and_are_of_the_same_niche(metric):
    z, obs = _two_batches()
    plain, _ = _from_other_slide(NicheIndex.build(z, obs, metric=metric), obs)
    index = NicheIndex.build(z, obs, metric=metric, calibrate="slide")
    other, same = _from_other_slide(index, obs)
    assert plain < 0.02
    assert other > 0.4  # half of them would be perfect
    assert same > 0.9


def test_each_slide_has_mean_zero_and_mean_square_length_one():
    z, obs = _two_batches()
    index = NicheIndex.build(z, obs, metric="l2", calibrate="slide")
    for rows in np.split(np.arange(400), 2):
        vectors = index.vectors(rows)
        assert_allclose(vectors.mean(0), 0, atol=1e-5)
        assert_allclose((vectors**2).sum(1).mean(), 1, rtol=1e-5)


def test_a_shift_of_a_slide_changes_no_hit():
    z, obs = _two_batches()
    moved = z.copy()
    moved[200:] = 2 * moved[200:] + 5
    first, second = (
        NicheIndex.build(v, obs, calibrate="slide").search_like([3], k=20) for v in (z, moved)
    )
    assert_array_equal(first["row"], second["row"])


def test_queries_are_calibrated_by_the_slide_they_are_of():
    z, obs = _two_batches()
    index = NicheIndex.build(z, obs, calibrate="slide")
    by_row = index.search_like([7], k=5)
    by_name = index.search(z[7], k=5, slide="a", exclude=[7])
    by_each = index.search(z[[7, 250]], k=5, slide=["a", "b"], exclude=np.array([[7], [250]]))
    by_cells = index.search(z[7], k=5, slide=z[:200], exclude=[7])
    for hits in (by_name, by_each[:5], by_cells):
        assert_array_equal(hits["row"], by_row["row"])
    with pytest.raises(ValueError, match="'slide' with the queries, got None"):
        index.search(z[7])
    with pytest.raises(ValueError, match="calibrated for, got 'c'. There are: 'a', 'b'"):
        index.search(z[7], slide="c")
    with pytest.raises(ValueError, match="each of 3 queries or one for all, got 2"):
        index.search(z[:3], slide=["a", "b"])


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_a_calibrated_index_is_saved_loaded_and_grows(kind, tmp_path):
    z, obs = _two_batches()
    whole = NicheIndex.build(z, obs, kind=kind, calibrate="slide", min_recall=1.0)
    grown = NicheIndex.build(z[:200], obs[:200], kind=kind, calibrate="slide", min_recall=1.0)
    grown = NicheIndex.load(grown.save(tmp_path / "index"))
    grown.append(z[200:], obs[200:])
    grown = NicheIndex.load(grown.save(tmp_path / "index"))
    assert "calibrated by slide" in repr(grown)
    assert_allclose(grown.vectors([5, 300]), whole.vectors([5, 300]), rtol=1e-6)
    one, other = (i.search(z[::50], k=5, slide=obs["slide_id"][::50]) for i in (grown, whole))
    assert_array_equal(one["row"], other["row"])
    with pytest.raises(ValueError, match="not in the calibrated index yet, got more cells of b"):
        grown.append(z[200:], obs[200:])
    assert len(grown) == 400


def test_what_cannot_be_calibrated_is_refused():
    z, obs = _two_batches()
    with pytest.raises(ValueError, match="'slide_id' of obs to calibrate by slide, got niche"):
        NicheIndex.build(z, obs[["niche"]], calibrate="slide")
    unknown = obs.assign(slide_id=obs["slide_id"].mask(obs.index == 7))
    with pytest.raises(ValueError, match="'slide_id' of each item, got none for row 7 '7'"):
        NicheIndex.build(z, unknown, calibrate="slide")
    with pytest.raises(ValueError, match="'calibrate' slide or None, got 'donor'"):
        NicheIndex.build(z, obs, calibrate="donor")
    z[:200] = 1
    with pytest.raises(ValueError, match="those of a are all alike"):
        NicheIndex.build(z, obs, calibrate="slide")


def test_blocks_do_not_change_the_calibration():
    z, obs = _two_batches()
    shuffled = np.random.default_rng(0).permutation(400)
    whole = SlideCalibration.fit(z, obs["slide_id"].to_numpy())
    slide = obs["slide_id"].to_numpy()[shuffled]
    parts = SlideCalibration.fit(z[shuffled], slide, chunk_size=7)
    assert_allclose(parts.mean, whole.mean, rtol=1e-4, atol=1e-6)
    assert_allclose(parts.scale, whole.scale, rtol=1e-5)
