"""First clusters of a slide, from which the negatives of a spot are sampled."""

from typing import Literal

import numpy as np
import torch
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
        num_clusters: Clusters; fewer spots than that are one each.
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
    size = min(num_components, min(log.shape) - 1)
    z = PCA(size, svd_solver="arpack", random_state=seed).fit_transform(log)
    found = KMeans()(z, min(num_clusters, len(z)), seed)
    return torch.from_numpy(found.labels)
