"""Spatial domains: clusters of an embedding against the regions that an expert drew."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.clustering.clusters import Clusterer
from spatiagraph.clustering.names import as_clusterer
from spatiagraph.evaluate.inputs import UnscorableError, as_codes, as_embedding, as_embeddings
from spatiagraph.evaluate.prediction import mean_and_std

NOISE = 0.01
"""Deviation of the noise by which scores of domains are tested, as a share of the features'."""


def cluster_domains(
    embeddings: ArrayLike | Tensor,
    num_domains: int,
    *,
    method: str | Clusterer = "kmeans",
    seed: int = 0,
) -> NDArray[np.int64]:
    """Domains as clusters of cells with a similar embedding.

    Which of k-means and the mixture is better differs from slide to slide: report both.

    Args:
        embeddings: Embedding of each cell, ``[N, D]``. No column is rescaled.
        num_domains: Number of domains, ``K``; fewer where fewer embeddings differ, as at the
            tissue level of a small slide.
        method: ``"kmeans"`` (:class:`~spatiagraph.clustering.KMeans`), ``"gmm"``
            (:class:`~spatiagraph.clustering.Mixture`), ``"leiden"``
            (:class:`~spatiagraph.clustering.Leiden`), or a clusterer.
        seed: The same seed gives the same domains.

    Returns:
        ``[N]`` integers in ``[0, K)``.

    Raises:
        ValueError: More domains than cells, values that are not finite, an unknown method.

    Examples:
        >>> len(set(cluster_domains([[0.0], [0.1], [5.0], [5.1]], 2).tolist()))
        2
    """
    z = as_embedding(embeddings)
    clusterer = as_clusterer(method)
    if not 1 <= num_domains <= len(z):
        raise ValueError(
            f"Expected 'num_domains' between 1 and the {len(z)} cells, got {num_domains}"
        )
    return clusterer(z, min(num_domains, len(np.unique(z, axis=0))), seed).labels


def moved_by_noise(
    features: NDArray[np.floating] | csr_matrix, seed: int, share: float = NOISE
) -> NDArray[np.floating] | csr_matrix:
    """Features with a little normal noise, as another run of the same method might give them.

    Args:
        features: ``[N, D]``, dense or sparse; stays as it is.
        seed: The same seed gives the same noise.
        share: Deviation of the noise: of that of all dense values, or of each sparse one.

    Examples:
        >>> moved = moved_by_noise(np.array([[0.0], [2.0]]), seed=0)
        >>> bool((np.abs(moved - [[0.0], [2.0]]) < 0.05).all())
        True
    """
    rng = np.random.default_rng(seed)
    if isinstance(features, csr_matrix):
        moved = features.copy()
        moved.data *= 1 + share * rng.standard_normal(moved.nnz).astype(moved.dtype)
        return moved
    return features + share * features.std() * rng.standard_normal(features.shape).astype(
        features.dtype
    )


def score_domains(
    embeddings: Mapping[str, ArrayLike | Tensor],
    labels: ArrayLike | pd.Series | Tensor,
    *,
    num_domains: int | None = None,
    method: str | Clusterer = "kmeans",
    num_seeds: int = 5,
    noise: bool = True,
    ignore: Collection[object] = (),
    progress: bool = False,
) -> pd.DataFrame:
    """Score clusters of each embedding against the labelled domains.

    Cells without label are left out of clustering and scoring; that they took part in the
    embedding, as context of their neighbours, is fine. Put
    :func:`~spatiagraph.evaluate.domain_baselines` into the same table.

    Args:
        embeddings: Name → embedding of each cell, ``[N, D]``.
        labels: Domain of each cell, ``[N]``; missing values and integers below 0 are no label.
        num_domains: Number of clusters; by default the number of different labels.
        method: A clusterer or its name, as in :func:`cluster_domains`.
        num_seeds: Clusterings to average over, with seeds 0, 1, ...
        noise: Cluster as often again, embeddings that noise has moved; ``False`` leaves those two
            columns out.
        ignore: Labels that mean "not labelled", such as ``("undetermined",)``.
        progress: Show a bar.

    Returns:
        One row per embedding: adjusted Rand index ``ARI`` and normalised mutual information
        ``NMI``, means over seeds, with the standard deviation over seeds as ``ARI_std`` and
        ``NMI_std``, and that over as many embeddings moved by noise of 1 %
        (:func:`moved_by_noise`), clustered with seed 0, as ``ARI_noise`` and ``NMI_noise`` (NaN
        for one seed): figures that differ by less than either are equal; ``num_domains``,
        ``num_cells`` scored, and ``method``.

    Raises:
        ValueError: An embedding does not fit the labels, or fewer than two domains are labelled.

    Examples:
        >>> z = np.array([[0.0], [0.1], [5.0], [5.1], [2.0]])
        >>> table = score_domains({"mine": z}, ["a", "a", "b", "b", None], num_seeds=2)
        >>> float(table.loc["mine", "ARI"]), int(table.loc["mine", "num_cells"])
        (1.0, 4)
    """
    truth = as_codes(labels, ignore)
    arrays = as_embeddings(embeddings, len(truth))
    clusterer = as_clusterer(method)
    shown = method if isinstance(method, str) else repr(method)
    if num_seeds < 1:
        raise ValueError(f"Expected 'num_seeds' of at least 1, got {num_seeds}")
    rows = np.flatnonzero(truth >= 0)
    truth = truth[rows]
    num_labels = len(np.unique(truth))
    if num_labels < 2:
        raise UnscorableError(
            f"Expected at least two different labels to compare with, got {num_labels} in "
            f"{len(rows)} labelled cells"
        )
    k = num_labels if num_domains is None else num_domains
    table = {}
    moved = range(num_seeds if noise and num_seeds > 1 else 0)
    total = len(arrays) * (num_seeds + len(moved))
    with tqdm(total=total, desc=shown, disable=not progress) as bar:

        def agreement(z: NDArray[np.floating], seed: int) -> dict[str, float]:
            found = cluster_domains(z, k, method=clusterer, seed=seed)
            bar.update()
            return {
                "ARI": adjusted_rand_score(truth, found),
                "NMI": normalized_mutual_info_score(truth, found),
            }

        for name, z in arrays.items():
            own = z[rows]
            by_seed = [agreement(own, seed) for seed in range(num_seeds)]
            by_noise = [agreement(moved_by_noise(own, seed), 0) for seed in moved]
            spread = pd.DataFrame(by_noise, columns=["ARI", "NMI"], dtype=float).std(ddof=1)
            table[name] = {
                **mean_and_std(by_seed),
                **(spread.add_suffix("_noise") if noise else {}),
                "num_domains": k,
                "num_cells": len(rows),
                "method": shown,
            }
    return pd.DataFrame.from_dict(table, orient="index")
