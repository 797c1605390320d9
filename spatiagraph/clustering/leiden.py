"""Leiden communities of the graph of nearest cells in an embedding."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from spatiagraph._optional import require
from spatiagraph.clustering.clusters import Clusters, check_number

_MAX_DIMS = 50  # a wider embedding is reduced first
_LOWEST, _HIGHEST = 1e-3, 50.0  # resolutions
_MAX_STEPS = 40  # of the search for a resolution
_MORE_SEEDS = 4  # that are tried where one jumps over the number


@dataclass(frozen=True)
class Leiden:
    """`Leiden <https://arxiv.org/abs/1810.08473>`_ at the resolution that gives ``K`` clusters.

    The resolution is found by bisection, the same seed at each step; where the number is jumped
    over, with a few other seeds that follow from it. The confidence of a cell is the share of its
    neighbours in the graph that are in its cluster.

    Args:
        num_neighbors: Nearest cells that each cell is connected to, without weights.

    Raises:
        ValueError: When called: no resolution gives that number of clusters.
        ImportError: When called: the extra ``[cluster]`` is not installed.
    """

    num_neighbors: int = 15

    def __call__(self, z: NDArray[np.floating], num_clusters: int, seed: int, /) -> Clusters:
        check_number(num_clusters, len(z))
        graph = neighbor_graph(z, self.num_neighbors)
        seen = set[int]()
        others = np.random.default_rng(seed).integers(2**31 - 1, size=_MORE_SEEDS)
        for own in (seed, *others.tolist()):
            low, high = np.log(_LOWEST), np.log(_HIGHEST)
            for _ in range(_MAX_STEPS):
                middle = (low + high) / 2
                labels = leiden(graph, float(np.exp(middle)), own)
                size = int(labels.max()) + 1
                if size == num_clusters:
                    return Clusters(labels, _share_alike(graph, labels))
                seen.add(size)
                low, high = (middle, high) if size < num_clusters else (low, middle)
        near = sorted(seen, key=lambda size: abs(size - num_clusters))[:2]
        raise ValueError(
            f"Expected a resolution at which Leiden finds {num_clusters} clusters, got "
            f"{' and '.join(map(str, sorted(near)))} at the nearest ones. Ask for one of these, or "
            "another seed or method"
        )


def neighbor_graph(z: NDArray[np.floating], num_neighbors: int = 15) -> Any:
    """Graph of the nearest cells in the embedding, without weights or directions (igraph).

    An embedding wider than 50 is reduced to 50 principal components.

    Args:
        z: ``[N, D]``.
        num_neighbors: Neighbours of each cell.

    Raises:
        ImportError: The extra ``[cluster]`` is not installed.
    """
    igraph = require("igraph", extra="cluster", purpose="Leiden clustering")
    if z.shape[1] > _MAX_DIMS:
        z = PCA(min(_MAX_DIMS, len(z)), random_state=0).fit_transform(z)
    k = min(num_neighbors, len(z) - 1)
    near = NearestNeighbors(n_neighbors=k).fit(z).kneighbors(return_distance=False)
    edges = np.stack([np.repeat(np.arange(len(z)), k), near.ravel()], axis=1)
    return igraph.Graph(len(z), edges).simplify()


def leiden(graph: Any, resolution: float, seed: int) -> NDArray[np.int64]:
    """Cluster of each cell, ``[N]``.

    Args:
        graph: Of :func:`neighbor_graph`.
        resolution: Of modularity; more clusters the higher it is.
        seed: The same seed gives the same clusters.

    Raises:
        ImportError: The extra ``[cluster]`` is not installed.
    """
    leidenalg = require("leidenalg", extra="cluster", purpose="Leiden clustering")
    partition = leidenalg.find_partition(
        graph, leidenalg.RBConfigurationVertexPartition, resolution_parameter=resolution, seed=seed
    )
    return np.asarray(partition.membership, dtype=np.int64)


def _share_alike(graph: Any, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    edges = np.asarray(graph.get_edgelist(), dtype=np.int64).reshape(-1, 2)
    both = np.concatenate([edges, edges[:, ::-1]])
    alike = labels[both[:, 0]] == labels[both[:, 1]]
    degree = np.bincount(both[:, 0], minlength=len(labels))
    count = np.bincount(both[:, 0], alike, minlength=len(labels))
    return np.divide(count, degree, out=np.ones(len(labels)), where=degree > 0)
