"""Batch integration: are cells of one type together, and batches mixed?"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import silhouette_samples
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from spatiagraph.evaluate.clustering import score_domains
from spatiagraph.evaluate.inputs import as_codes, as_embeddings


def score_integration(
    embeddings: Mapping[str, ArrayLike | Tensor],
    batches: ArrayLike | pd.Series | Tensor,
    types: ArrayLike | pd.Series | Tensor,
    *,
    num_neighbors: int = 90,
    max_cells: int = 5000,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Score how far an embedding keeps types apart and mixes batches.

    The measures of `"Benchmarking atlas-level data integration in single-cell genomics"
    <https://doi.org/10.1038/s41592-021-01336-8>`_, each from 0 (bad) to 1: ``NMI`` and ``ARI`` of
    k-means with the types, ``type_ASW`` :math:`(s + 1) / 2` of silhouettes of types, ``batch_ASW``
    :math:`1 - |s|` of silhouettes of batches within each type, averaged over types,
    ``connectivity``, the share of each type in its largest component of the graph of neighbours,
    and ``iLISI``, the inverse Simpson index of batches among neighbours from 1 (one batch) to their
    number, on a scale from 0 to 1. Neighbours weigh the same, and their graph is undirected; in
    scib-metrics near ones weigh more, and components are strong ones. Silhouettes are the same.

    An embedding that knows nothing mixes batches perfectly: read ``bio`` and ``mixing`` together.

    Args:
        embeddings: Name → embedding of each cell, ``[N, D]``.
        batches: Batch of each cell, ``[N]``.
        types: Type of each cell, ``[N]``; cells without one take no part.
        num_neighbors: Neighbours of a cell.
        max_cells: More cells than this are thinned out.
        seed: Seed of thinning and of k-means.

    Returns:
        One row per embedding: the six measures, ``bio``, the mean of ``NMI``, ``ARI`` and
        ``type_ASW``, and ``mixing``, that of the others; ``num_cells``.

    Raises:
        ValueError: Sizes differ, or there are fewer than two batches or types.

    Examples:
        >>> z = np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
        >>> table = score_integration({"z": z}, list("ababab"), list("xxxyyy"), num_neighbors=2)
        >>> table[["NMI", "ARI", "connectivity"]].iloc[0].tolist()
        [1.0, 1.0, 1.0]
    """
    kind, batch = as_codes(types), as_codes(batches)
    if len(kind) != len(batch):
        raise ValueError(f"Expected a batch of every cell, got {len(batch)} for {len(kind)} cells")
    arrays = as_embeddings(embeddings, len(kind))
    if num_neighbors < 1:
        raise ValueError(f"Expected 'num_neighbors' of at least 1, got {num_neighbors}")
    rows = np.flatnonzero((kind >= 0) & (batch >= 0))
    if len(rows) > max_cells:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:max_cells])
    kind, batch = kind[rows], batch[rows]
    for name, codes in (("types", kind), ("batches", batch)):
        if len(np.unique(codes)) < 2:
            raise ValueError(f"Expected at least two {name}, got {len(np.unique(codes))}")
    domains = score_domains({name: z[rows] for name, z in arrays.items()}, kind, num_seeds=1)
    table = {}
    agreement = domains[["NMI", "ARI"]].to_numpy(float)
    for (name, z), (nmi, ari) in zip(arrays.items(), agreement, strict=True):
        near = _neighbors(z[rows], min(num_neighbors, len(rows) - 1))
        row = {
            "NMI": nmi,
            "ARI": ari,
            "type_ASW": float((silhouette_samples(z[rows], kind).mean() + 1) / 2),
            "batch_ASW": _batch_width(z[rows], kind, batch),
            "connectivity": _connectivity(near, kind),
            "iLISI": _mixing(near, batch),
        }
        row["bio"] = float(np.mean([row[c] for c in ("NMI", "ARI", "type_ASW")]))
        row["mixing"] = float(np.mean([row[c] for c in ("batch_ASW", "connectivity", "iLISI")]))
        table[name] = {**row, "num_cells": len(rows)}
    return pd.DataFrame(table).T.rename_axis("embedding").astype({"num_cells": int})


def _neighbors(z: NDArray[np.floating], num: int) -> NDArray[np.int64]:
    """Nearest other cells of each, ``[N, num]``."""
    found: NDArray[np.int64] = NearestNeighbors(n_neighbors=num).fit(z).kneighbors()[1]
    return found


def _batch_width(
    z: NDArray[np.floating], kind: NDArray[np.int64], batch: NDArray[np.int64]
) -> float:
    """One less the width of batches within a type, over types that are of two and not alone."""
    widths = []
    for code in np.unique(kind):
        of = kind == code
        if 2 <= len(np.unique(batch[of])) < of.sum():
            widths.append(float((1 - np.abs(silhouette_samples(z[of], batch[of]))).mean()))
    return float(np.mean(widths)) if widths else float("nan")


def _connectivity(near: NDArray[np.int64], kind: NDArray[np.int64]) -> float:
    """Share of each type in its largest component, averaged over types."""
    num, width = near.shape
    target = np.repeat(np.arange(num), width)
    graph = csr_matrix((np.ones(near.size, dtype=bool), (target, near.ravel())), (num, num))
    shares = []
    for code in np.unique(kind):
        of = np.flatnonzero(kind == code)
        _, part = connected_components(graph[of][:, of], directed=False)
        shares.append(np.bincount(part).max() / len(of))
    return float(np.mean(shares))


def _mixing(near: NDArray[np.int64], batch: NDArray[np.int64]) -> float:
    """Median inverse Simpson index of batches among neighbours, from 0 to 1."""
    num_batches = int(batch.max()) + 1
    row = np.repeat(np.arange(len(near)), near.shape[1])
    count = np.bincount(
        row * num_batches + batch[near.ravel()], minlength=len(near) * num_batches
    ).reshape(len(near), num_batches)
    index = 1 / ((count / near.shape[1]) ** 2).sum(1)
    return float((np.median(index) - 1) / (len(np.unique(batch)) - 1))
