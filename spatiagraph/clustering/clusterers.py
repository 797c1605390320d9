"""Clusters about centres: k-means and Gaussian mixtures, of all cells or learned on a sample."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn import cluster
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from spatiagraph.clustering.clusters import Clusters, check_number

_MAX_DIMS, _DIMS = 30, 20  # a wider embedding is reduced before a mixture is fitted


@dataclass(frozen=True)
class KMeans:
    r"""k-means on the embedding as it is; no column is rescaled.

    The confidence of a cell at distance :math:`d_1` from its centre and :math:`d_2` from the next
    is :math:`1 - d_1 / d_2`: 1 at the centre, 0 halfway between two.

    Args:
        num_starts: Restarts, of which the best is kept.
        max_cells: Learn the centres on a sample of this size, drawn by the seed; then assign all
            cells. ``None`` takes all of them.
    """

    num_starts: int = 10
    max_cells: int | None = None

    def __call__(self, z: NDArray[np.floating], num_clusters: int, seed: int, /) -> Clusters:
        check_number(num_clusters, len(z))
        rows = sample_rows(len(z), self.max_cells, num_clusters, seed)
        model = cluster.KMeans(num_clusters, n_init=self.num_starts, random_state=seed).fit(z[rows])
        distance = model.transform(z)
        labels = model.predict(z).astype(np.int64)
        return Clusters(labels, _margin(distance))


@dataclass(frozen=True)
class Mixture:
    """Gaussian mixture, by default with one covariance for all components (mclust's EEE).

    Fitted on the first 20 principal components where there are more than 30 dimensions, after
    division by one standard deviation over all of them: that leaves the shape alone and puts the
    regulariser on scale. The confidence of a cell is the posterior of its component.

    Args:
        covariance: As scikit-learn calls them.
        num_starts: Restarts, of which the best is kept.
        reg_covar: Added to the diagonal of covariances.
        max_cells: Learn the mixture on a sample of this size, drawn by the seed; then assign all
            cells. ``None`` takes all of them.
    """

    covariance: Literal["tied", "full", "diag", "spherical"] = "tied"
    num_starts: int = 5
    reg_covar: float = 1e-5
    max_cells: int | None = None

    def __call__(self, z: NDArray[np.floating], num_clusters: int, seed: int, /) -> Clusters:
        check_number(num_clusters, len(z))
        if z.shape[1] > _MAX_DIMS:
            z = PCA(min(_DIMS, len(z)), random_state=0).fit_transform(z)
        z = z.astype(np.float64)  # a covariance of few different rows needs the digits
        z = (z - z.mean(axis=0)) / (z.std() or 1.0)
        model = GaussianMixture(
            num_clusters,
            covariance_type=self.covariance,
            n_init=self.num_starts,
            reg_covar=self.reg_covar,
            max_iter=200,
            random_state=seed,
        )
        rows = sample_rows(len(z), self.max_cells, num_clusters, seed)
        posterior = model.fit(z[rows]).predict_proba(z)
        return Clusters(posterior.argmax(axis=1).astype(np.int64), posterior.max(axis=1))


def sample_rows(
    num_cells: int, max_cells: int | None, num_clusters: int, seed: int
) -> NDArray[np.int64] | slice:
    """Rows to learn from: all, or a sample that has a cell for each cluster at least."""
    if max_cells is None or num_cells <= max_cells:
        return slice(None)
    size = max(max_cells, num_clusters)
    return np.sort(np.random.default_rng(seed).choice(num_cells, size, replace=False))


def _margin(distance: NDArray[np.floating]) -> NDArray[np.float64]:
    """``1 - d1 / d2`` of the nearest two centres, from all distances ``[N, K]``."""
    if distance.shape[1] == 1:
        return np.ones(len(distance))
    near, next_ = np.partition(distance.astype(np.float64), 1, axis=1)[:, :2].T
    return 1 - np.divide(near, next_, out=np.ones_like(near), where=next_ > 0)
