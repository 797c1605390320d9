import numpy as np
import pytest
from scipy.sparse import csr_matrix

from spatiagraph.data.tokens import StreamingMedians, fit_medians


def random_counts():
    rng = np.random.default_rng(0)
    x = rng.negative_binomial(0.8, 0.1, (301, 40)) * (rng.random(40) < 0.9)
    x[:, 5] = 0
    return csr_matrix(x.astype(np.float32))


def test_medians_of_the_published_example():
    """SpatialFormer fact F5."""
    counts = csr_matrix(np.array([[10, 2, 0, 4, 4], [1, 1, 1, 1, 0]], np.float32))
    np.testing.assert_allclose(fit_medians(counts), [3750, 1750, 2500, 2250, 2000])


def test_medians_match_numpy_over_expressing_cells():
    counts = random_counts()
    x = counts.toarray().astype(np.float64)
    scaled = x / x.sum(1, keepdims=True) * 10_000
    expected = [np.median(c[c > 0]) if (c > 0).any() else 1.0 for c in scaled.T]
    np.testing.assert_allclose(fit_medians(counts), expected)
    doubled = fit_medians(counts, depth=2 * x.sum(1))
    np.testing.assert_allclose(doubled[x.sum(0) > 0], np.array(expected)[x.sum(0) > 0] / 2)


def test_streamed_medians_are_within_half_a_percent():
    counts, stream = random_counts(), StreamingMedians(40)
    for start in range(0, 301, 50):
        stream.update(counts[start : start + 50])
    np.testing.assert_allclose(stream.medians(), fit_medians(counts), rtol=0.005)
    assert stream.medians()[5] == 1


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="'depth' of 301 cells"):
        fit_medians(random_counts(), depth=[1.0])
    with pytest.raises(ValueError, match="counts of 3 genes, got 40"):
        StreamingMedians(3).update(random_counts())
