"""First clusters of a slide, from which the negatives of a spot are sampled."""

from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from torch import Tensor

from spatiagraph.clustering import KMeans
from spatiagraph.data.normalization import log_normalize
from spatiagraph.data.variability import gene_variability


def first_clusters(
    counts: csr_matrix,
    num_clusters: int = 6,
    *,
    num_genes: int = 2000,
    num_components: int = 50,
    expression: Literal["counts", "normalized"] = "counts",
    seed: int = 0,
) -> Tensor:
    """Clusters of spots by k-means on principal components of the most variable genes.

    Args:
        counts: Counts or normalised expression, ``[N, G]``.
        num_clusters: Clusters, at most. Fewer spots than that are one each, and so are fewer
            profiles that differ: one cluster where nothing varies.
        num_genes: Most genes to use.
        num_components: Most components.
        expression: ``"counts"`` or ``"normalized"``.
        seed: Seed of k-means.

    Returns:
        ``[N]`` int64.
    """
    if min(counts.shape) < 3:
        return torch.arange(counts.shape[0]) % num_clusters
    log = log_normalize(counts, expression=expression)
    if log.shape[1] > num_genes:
        chosen = np.argsort(-gene_variability(counts, expression), kind="stable")[:num_genes]
        log = log[:, np.sort(chosen)]
    profile = _profiles(log, num_clusters)
    if profile is not None:
        return torch.from_numpy(profile)
    size = min(num_components, min(log.shape) - 1)
    z = PCA(size, svd_solver="arpack", random_state=seed).fit_transform(log)
    found = KMeans()(z, min(num_clusters, len(z)), seed)
    return torch.from_numpy(found.labels)


def _profiles(values: csr_matrix, least: int) -> NDArray[np.int64] | None:
    """Number of the profile of each spot, ``[N]``; ``None`` where ``least`` of them differ."""
    values = values.tocsr(copy=True)
    values.data = values.data.round(9)  # the same shares of other depths, up to the last digits
    values.eliminate_zeros()
    values.sort_indices()
    number: dict[tuple[bytes, bytes], int] = {}
    found = np.empty(values.shape[0], np.int64)
    for i, (start, end) in enumerate(pairwise(values.indptr)):  # ends early on any real slide
        row = (values.indices[start:end].tobytes(), values.data[start:end].tobytes())
        found[i] = number.setdefault(row, len(number))
        if len(number) >= least:
            return None
    return found
