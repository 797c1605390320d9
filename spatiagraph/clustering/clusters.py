"""Contract of a clusterer."""

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


class Clusters(NamedTuple):
    """Clusters of cells.

    Attributes:
        labels: Cluster of each cell, ``[N]`` in ``[0, K)``.
        confidence: How surely it belongs there, ``[N]`` in ``[0, 1]``; each clusterer says what
            that is.
    """

    labels: NDArray[np.int64]
    confidence: NDArray[np.float64]


@runtime_checkable
class Clusterer(Protocol):
    """Rule that makes clusters of an embedding; any function of this signature is one."""

    def __call__(self, z: NDArray[np.floating], num_clusters: int, seed: int, /) -> Clusters:
        """Clusters of cells.

        Args:
            z: Embedding of each cell, ``[N, D]``, finite.
            num_clusters: Number of clusters, ``K``.
            seed: The same seed gives the same clusters.
        """


def check_number(num_clusters: int, num_cells: int) -> None:
    """Refuse more clusters than cells.

    Raises:
        ValueError: Not between 1 and the number of cells.
    """
    if not 1 <= num_clusters <= num_cells:
        raise ValueError(
            f"Expected a number of domains between 1 and the {num_cells} cells, got {num_clusters}"
        )
