"""A network that has learned to measure."""

import numpy as np
import pytest
import torch

from spatiagraph.data import MORPHOLOGY, measure_morphology
from spatiagraph.nn import MorphologyProfile
from spatiagraph.training import fit_morphology

OPTIONS = {"accelerator": "cpu", "progress": False, "batch_size": 32}


def nuclei(num):
    """Ellipses of many sizes, stains and directions, ``[N, 1, 16, 16]``."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16] - 7.5
    dy, dx, angle = rng.uniform(-1, 1, (3, num, 1, 1))
    minor, ratio, stain = rng.uniform([2.5, 1, 0.4], [4.5, 1.5, 0.9], (num, 3)).T[:, :, None, None]
    u = np.cos(3 * angle) * (x - dx) + np.sin(3 * angle) * (y - dy)
    v = np.cos(3 * angle) * (y - dy) - np.sin(3 * angle) * (x - dx)
    inside = np.clip((1 - np.hypot(u / ratio, v) / minor) * minor + 0.5, 0, 1)
    noise = rng.normal(scale=0.03, size=inside.shape)
    return np.clip(0.1 + stain * inside + noise, 0, 1)[:, None].astype(np.float32)


@pytest.fixture(scope="module")
def crops():
    image = nuclei(500)
    return image, measure_morphology(image, mpp=0.5)


def test_it_measures_nuclei_it_has_not_seen_far_better_than_their_mean(crops):
    found = fit_morphology(*crops, max_epochs=6, held_out=0.3, **OPTIONS)
    assert found.r2["area_um2"] > 0.7
    assert found.r2["intensity_mean"] > 0.7
    assert found.r2.index.tolist() == list(MORPHOLOGY)
    loss = found.history["loss"]
    assert loss.iloc[-1] < 0.5 * loss.iloc[0]
    assert not any(p.requires_grad for p in found.model.parameters())


def test_features_of_other_crops_are_not_learned(crops):
    """The same training, with nothing to learn."""
    image, features = crops
    shuffled = features.sample(frac=1, random_state=0).reset_index(drop=True)
    found = fit_morphology(image, shuffled, max_epochs=2, held_out=0.3, **OPTIONS)
    assert found.r2.max() < 0.1


def test_crops_of_bytes_are_refused(crops):
    image, features = crops
    with pytest.raises(ValueError, match=r"\[0, 1\], got torch.uint8"):
        fit_morphology((255 * image).astype(np.uint8), features, **OPTIONS)


def test_a_seed_says_everything_and_blank_crops_nothing(crops):
    image, features = crops[0][:60], crops[1][:60].copy()
    first, again = (fit_morphology(image, features, max_epochs=1, **OPTIONS) for _ in range(2))
    assert first.r2.equals(again.r2)
    blank = np.concatenate([image, np.full_like(image[:9], 0.5)])
    table = measure_morphology(blank, mpp=0.5)
    assert table.isna().all(axis=1).sum() == 9
    with_blank = fit_morphology(torch.from_numpy(blank), table, max_epochs=1, **OPTIONS)
    assert with_blank.r2.equals(first.r2)


def test_a_run_is_kept_and_ends_as_one_that_was_not_interrupted(crops, tmp_path):
    image, features = crops[0][:60], crops[1][:60]
    whole = fit_morphology(image, features, max_epochs=2, out=tmp_path, **OPTIONS)
    saved = MorphologyProfile.from_pretrained(tmp_path / "model")
    x = torch.from_numpy(image)
    with torch.no_grad():
        assert torch.equal(saved.measure(x), whole.model.measure(x))
    again = fit_morphology(image, features, max_epochs=2, out=tmp_path, **OPTIONS)
    assert again.r2.equals(whole.r2)
    with pytest.raises(ValueError, match=r"another run \(different: max_epochs 2 → 3\)"):
        fit_morphology(image, features, max_epochs=3, out=tmp_path, **OPTIONS)


def test_too_few_crops_are_refused(crops):
    image, features = crops
    with pytest.raises(ValueError, match=r"got \[500, 1, 16, 16\] and 499 rows"):
        fit_morphology(image, features[1:], **OPTIONS)
    with pytest.raises(ValueError, match="got 9 and 1 of 10"):
        fit_morphology(image[:10], features[:10], **OPTIONS)
    with pytest.raises(ValueError, match="'held_out' between 0 and 1, got 1"):
        fit_morphology(image, features, held_out=1, **OPTIONS)
