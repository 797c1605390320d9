"""``project``: embeddings in two dimensions, to be drawn."""

import warnings
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from spatiagraph._optional import require

EXTRA = "umap"
_NEIGHBORS = 15
_MIN_CELLS = 30
_MAX_CELLS = 20_000


def can_project() -> bool:
    """Check that umap-learn is installed; it is not imported, which takes seconds."""
    return find_spec("umap") is not None


def project(
    embeddings: NDArray[np.floating], *, max_cells: int = _MAX_CELLS, seed: int = 0
) -> NDArray[np.float32]:
    """Embed vectors in two dimensions with UMAP (McInnes et al. 2018, arXiv 1802.03426).

    Neighbours are exact.

    Args:
        embeddings: ``[N, D]``; rows that are not finite are left out.
        max_cells: Of more rows, this many random ones take part.
        seed: Seed of the draw and of UMAP.

    Returns:
        ``[N, 2]``; NaN for rows that are left out, and for all where fewer than 30 are finite.

    Raises:
        ImportError: umap-learn is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)  # of parts of it that we do not use
        umap = require("umap", extra=EXTRA, purpose="a UMAP")
    z = np.asarray(embeddings, dtype=np.float32)
    place = np.full((len(z), 2), np.nan, dtype=np.float32)
    rows = np.flatnonzero(np.isfinite(z).all(axis=1))
    if len(rows) < _MIN_CELLS:
        return place
    if len(rows) > max_cells:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_cells, replace=False))
    near = min(_NEIGHBORS, len(rows) - 1)
    away, index = NearestNeighbors(n_neighbors=near).fit(z[rows]).kneighbors(z[rows])
    with warnings.catch_warnings():  # that it will not place new cells, which nobody asks for
        warnings.filterwarnings("ignore", "precomputed_knn", UserWarning)
        made = umap.UMAP(
            n_neighbors=near, precomputed_knn=(index, away), random_state=seed, n_jobs=1
        )
        place[rows] = made.fit_transform(z[rows])
    return place
