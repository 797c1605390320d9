"""Clusterers by name."""

from spatiagraph.clustering.clusterers import KMeans, Mixture
from spatiagraph.clustering.clusters import Clusterer
from spatiagraph.clustering.leiden import Leiden

_BY_NAME: dict[str, Clusterer] = {"kmeans": KMeans(), "gmm": Mixture(), "leiden": Leiden()}

NAMES = tuple(_BY_NAME)
"""Names that :func:`as_clusterer` knows."""


def as_clusterer(method: str | Clusterer) -> Clusterer:
    """Clusterer of a name, or the one that is given.

    Args:
        method: ``"kmeans"``, ``"gmm"``, ``"leiden"``, or a clusterer.

    Raises:
        ValueError: The name is not known.
        TypeError: Neither a name nor a function.

    Examples:
        >>> as_clusterer("kmeans")
        KMeans(num_starts=10, max_cells=None)
    """
    if isinstance(method, str):
        if method not in _BY_NAME:
            known = ", ".join(f'"{name}"' for name in NAMES)
            raise ValueError(f"Expected 'method' among {known}, or a clusterer, got {method!r}")
        return _BY_NAME[method]
    if not isinstance(method, Clusterer):
        raise TypeError(f"Expected a clusterer or its name, got {type(method).__name__}")
    return method
