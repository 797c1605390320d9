"""Profiles that frozen networks of genes make of the counts of a slide."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist

import spatiagraph as sg
from spatiagraph.data import RandomProjection, add_profiles
from spatiagraph.data.normalization import log_normalize
from spatiagraph.models import STAlign


@pytest.fixture
def slide():
    return sg.make_tissue(80, num_genes=60, image="he", seed=0)


def test_a_provider_sees_counts_and_symbols_and_its_profiles_are_features(slide):
    seen = []

    def provider(counts, gene_names):
        seen.append((counts.shape, list(gene_names)))
        return np.arange(counts.shape[0] * 4.0).reshape(-1, 4)

    add_profiles(slide, "X_own", provider)
    assert seen == [((80, 60), list(slide.symbols))]
    assert slide.adata.obsm["X_own"].dtype == np.float32
    np.testing.assert_array_equal(slide.adata.obsm["X_own"][3], [12, 13, 14, 15])
    slide.image = None
    model = STAlign.for_slides([slide], features=("X_own",), start=None)
    assert model.provider is None
    data = model.prepare(slide)
    np.testing.assert_array_equal(data["X_own"].numpy(), slide.adata.obsm["X_own"])


@pytest.mark.parametrize(
    ("profiles", "match"),
    [
        (np.zeros((79, 4)), r"numbers \[80, F\] in the profiles .* got float64 \[79, 4\]"),
        (np.zeros(80), r"numbers \[80, F\]"),
        (np.full((80, 2), "x"), r"numbers \[80, F\]"),
        (
            np.where(np.arange(160).reshape(80, 2) == 6, np.nan, 0),
            "finite values in the profiles .* others for",
        ),
    ],
)
def test_profiles_that_are_none_are_refused_and_nothing_is_written(slide, profiles, match):
    with pytest.raises(ValueError, match=match):
        add_profiles(slide, "X_own", lambda *_: profiles)
    assert "X_own" not in slide.adata.obsm


def test_a_random_projection_keeps_distances_and_agrees_across_panels(slide):
    project = RandomProjection(2048)
    z = project(slide.counts, slide.symbols)
    assert z.shape == (80, 2048)
    log = log_normalize(slide.counts).toarray()
    np.testing.assert_allclose(pdist(z), pdist(log), rtol=0.2)
    order = np.random.default_rng(0).permutation(60)
    names = [slide.symbols[i] for i in order]
    np.testing.assert_allclose(project(slide.counts[:, order], names), z, atol=1e-4)
    assert not np.allclose(RandomProjection(2048, seed=1)(slide.counts, slide.symbols), z)
    with pytest.raises(ValueError, match="'channels' of at least 1, got 0"):
        RandomProjection(0)


def test_features_of_another_size_on_a_second_slide_are_refused(slide):
    other = sg.make_tissue(60, num_genes=60, image="he", seed=1, slide_id="other")
    add_profiles(slide, "X_own", RandomProjection(16))
    add_profiles(other, "X_own", RandomProjection(8))
    with pytest.raises(
        ValueError, match="features of 16 numbers in every slide.*8 in slide 'other'"
    ):
        STAlign.for_slides([slide, other], features=("X_own",))
