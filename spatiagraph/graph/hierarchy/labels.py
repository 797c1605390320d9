"""Niches from labels a user has, or from clustering an embedding."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spatiagraph._optional import require

if TYPE_CHECKING:
    from collections.abc import Sequence


def label_niches(labels: "Sequence[object] | ArrayLike | pd.Series | Tensor") -> Tensor:
    """Numbers for the labels of cells, such as a column of annotated regions.

    Args:
        labels: One label per cell, ``[N]``: strings, categories or integers. Missing values and
            integers below 0 mean no niche.

    Returns:
        ``[N]`` integers in ``[0, M)`` in the order of the categories (or sorted), -1 for none;
        categories that do not occur get no number.

    Raises:
        ValueError: ``labels`` is not one-dimensional.

    Examples:
        >>> label_niches(["tumour", "stroma", None, "tumour"]).tolist()
        [1, 0, -1, 1]
    """
    values = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
    series = pd.Series(values)
    if pd.api.types.is_numeric_dtype(series.dtype):
        series = series.where(series >= 0)
    codes = series.astype("category").cat.remove_unused_categories().cat.codes
    return torch.from_numpy(codes.to_numpy(dtype=np.int64, copy=True))


def cluster_niches(
    z: ArrayLike | Tensor,
    num_clusters: int | None = None,
    *,
    resolution: float | None = None,
    num_neighbors: int = 15,
    seed: int = 0,
) -> Tensor:
    """Niches as clusters of cells that look alike.

    Args:
        z: Embedding of each cell, ``[N, D]``.
        num_clusters: k-means (mini-batch) into this many clusters.
        resolution: Leiden at this resolution instead, on the graph of the ``num_neighbors`` most
            similar cells (extra ``[cluster]``).
        num_neighbors: Neighbours of each cell in Leiden's graph.
        seed: The same seed gives the same clusters.

    Returns:
        ``[N]`` integers in ``[0, M)``.

    Raises:
        ValueError: Not exactly one of ``num_clusters`` and ``resolution``, or more clusters than
            cells, or values that are not finite.
        ImportError: Leiden is requested and not installed.
    """
    if (num_clusters is None) == (resolution is None):
        raise ValueError(
            "Expected either 'num_clusters' (k-means) or 'resolution' (Leiden), got "
            f"num_clusters={num_clusters} and resolution={resolution}"
        )
    features = np.asarray(z.detach().cpu() if isinstance(z, Tensor) else z, dtype=np.float32)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(f"Expected finite 'z' of shape [N, D], got {list(features.shape)}")
    if num_clusters is not None:
        return torch.from_numpy(_kmeans(features, num_clusters, seed))
    return torch.from_numpy(_leiden(features, float(resolution or 0), num_neighbors, seed))


def _kmeans(features: NDArray[np.float32], num_clusters: int, seed: int) -> NDArray[np.int64]:
    from sklearn.cluster import MiniBatchKMeans

    if not 1 <= num_clusters <= len(features):
        raise ValueError(
            f"Expected 'num_clusters' between 1 and {len(features)} (cells), got {num_clusters}"
        )
    model = MiniBatchKMeans(num_clusters, random_state=seed, n_init=3, batch_size=4096)
    return _compact(model.fit_predict(features))


def _leiden(
    features: NDArray[np.float32], resolution: float, num_neighbors: int, seed: int
) -> NDArray[np.int64]:
    from sklearn.neighbors import NearestNeighbors

    igraph = require("igraph", extra="cluster", purpose="Leiden clustering")
    leidenalg = require("leidenalg", extra="cluster", purpose="Leiden clustering")
    k = min(num_neighbors, len(features) - 1)
    index = NearestNeighbors(n_neighbors=k).fit(features).kneighbors(return_distance=False)
    edges = np.stack([np.repeat(np.arange(len(features)), k), index.ravel()], axis=1)
    graph = igraph.Graph(len(features), edges).simplify()
    partition = leidenalg.find_partition(
        graph, leidenalg.RBConfigurationVertexPartition, resolution_parameter=resolution, seed=seed
    )
    return np.asarray(partition.membership, dtype=np.int64)


def _compact(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """Renumber without gaps: a k-means centre may end up with no cell."""
    return np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int64)
