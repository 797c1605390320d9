import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from spatiagraph.clustering import KMeans, Leiden, Mixture, as_clusterer
from spatiagraph.clustering.names import NAMES


def blobs(per_cluster=40, spread=0.2, seed=0):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(3), per_cluster)
    center = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    return center[label] + spread * rng.normal(size=(len(label), 2)), label


@pytest.mark.parametrize("name", NAMES)
def test_each_finds_separate_clusters_and_is_sure_of_them(name):
    z, label = blobs()
    found = as_clusterer(name)(z, 3, 0)
    assert adjusted_rand_score(label, found.labels) == 1
    assert set(found.labels) == {0, 1, 2}
    assert found.confidence.shape == (len(z),)
    assert found.confidence.min() > 0.7
    assert found.confidence.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_between_two_clusters_is_less_sure(name):
    z, _ = blobs()
    between = np.array([[3.0, 0.0]])
    found = as_clusterer(name)(np.vstack([z, between]), 3, 0)
    assert found.confidence[-1] < 0.96
    assert found.confidence[-1] == found.confidence.min()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_clusters(name):
    z, _ = blobs(spread=2.0)
    first, second = (as_clusterer(name)(z, 3, 5) for _ in range(2))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.confidence, second.confidence)


def test_k_means_is_sure_at_a_centre_and_not_halfway():
    z = np.array([[0.0], [0.0], [4.0], [4.0], [1.0]])
    found = KMeans()(z, 2, 0)
    center = 1 / 3  # and 4
    np.testing.assert_allclose(found.confidence[2:4], 1)
    assert found.confidence[4] == pytest.approx(1 - (1 - center) / 3)
    assert found.confidence[0] == pytest.approx(1 - center / 4)


@pytest.mark.parametrize("kind", [KMeans, Mixture])
def test_clusters_learned_on_a_sample_are_those_of_all_cells(kind):
    z, label = blobs(per_cluster=200)
    found = kind(max_cells=60)(z, 3, 0)
    assert len(found.labels) == len(z)
    assert adjusted_rand_score(label, found.labels) == 1


def test_leiden_says_which_numbers_it_finds_where_it_cannot_find_the_one_asked_for():
    z = np.repeat(np.array([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]]), 20, axis=0)
    z = z + 0.01 * np.random.default_rng(0).normal(size=z.shape)
    with pytest.raises(ValueError, match="finds 2 clusters, got 3"):
        Leiden(num_neighbors=5)(z, 2, 0)


def test_unusable_requests_are_refused():
    z, _ = blobs()
    with pytest.raises(ValueError, match='"kmeans", "gmm", "leiden", or a clusterer, got \'ward\''):
        as_clusterer("ward")
    with pytest.raises(TypeError, match="clusterer or its name, got int"):
        as_clusterer(3)
    for name in NAMES:
        with pytest.raises(ValueError, match="between 1 and the 120 cells, got 121"):
            as_clusterer(name)(z, 121, 0)
