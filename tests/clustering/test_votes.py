import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from spatiagraph.clustering import agreement, vote


def test_agreement_is_the_adjusted_rand_index_of_every_pair():
    rng = np.random.default_rng(0)
    partitions = rng.integers(0, 4, (5, 60))
    partitions[3] = partitions[2] // 2  # fewer clusters
    partitions[4] = 0  # one cluster
    expected = [[adjusted_rand_score(a, b) for b in partitions] for a in partitions]
    np.testing.assert_allclose(agreement(partitions), expected, atol=1e-9)


def test_a_vote_does_not_depend_on_names_of_clusters_or_order_of_partitions():
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 200)
    partitions = np.stack(
        [np.where(rng.random(200) < 0.2, rng.integers(0, 3, 200), truth) for _ in range(9)]
    )
    renamed = np.stack([rng.permutation(3)[row] for row in partitions])
    plain, other = vote(partitions, 3), vote(renamed[::-1], 3)
    assert adjusted_rand_score(plain.argmax(1), other.argmax(1)) == 1
    np.testing.assert_allclose(np.sort(plain, axis=1), np.sort(other, axis=1))
    single = np.mean([adjusted_rand_score(truth, row) for row in partitions])
    assert adjusted_rand_score(truth, plain.argmax(1)) > single + 0.2


def test_shares_of_a_vote_count_partitions():
    votes = vote([[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 1], [0, 0, 1, 1]], 2)
    assert votes.shape == (4, 2)
    np.testing.assert_allclose(votes.sum(axis=1), 1)
    np.testing.assert_allclose(votes.max(axis=1), [1, 1, 1, 0.75])


def test_a_partition_with_fewer_clusters_votes_too():
    votes = vote([[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1]], 3)
    assert votes.argmax(axis=1)[[0, 2, 4]].tolist() == sorted(set(votes.argmax(axis=1)))
    assert votes.max(axis=1).min() == pytest.approx(2 / 3)
