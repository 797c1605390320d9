"""Spatial domains: clusters of an embedding against the regions that an expert drew."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.clustering.clusters import Clusterer
from spatiagraph.clustering.names import as_clusterer
from spatiagraph.evaluate.inputs import UnscorableError, as_codes, as_embedding, as_embeddings


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


def score_domains(
    embeddings: Mapping[str, ArrayLike | Tensor],
    labels: ArrayLike | pd.Series | Tensor,
    *,
    num_domains: int | None = None,
    method: str | Clusterer = "kmeans",
    num_seeds: int = 5,
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
        ignore: Labels that mean "not labelled", such as ``("undetermined",)``.
        progress: Show a bar.

    Returns:
        One row per embedding: adjusted Rand index ``ARI`` and normalised mutual information
        ``NMI``, means over seeds, with the standard deviation over seeds as ``ARI_std`` and
        ``NMI_std`` (NaN for one seed); ``num_domains``, ``num_cells`` scored, and ``method``.

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
    with tqdm(total=len(arrays) * num_seeds, desc=shown, disable=not progress) as bar:
        for name, z in arrays.items():
            ari, nmi = np.empty(num_seeds), np.empty(num_seeds)
            for seed in range(num_seeds):
                found = cluster_domains(z[rows], k, method=clusterer, seed=seed)
                ari[seed] = adjusted_rand_score(truth, found)
                nmi[seed] = normalized_mutual_info_score(truth, found)
                bar.update()
            several = num_seeds > 1
            table[name] = {
                "ARI": ari.mean(),
                "ARI_std": ari.std(ddof=1) if several else np.nan,
                "NMI": nmi.mean(),
                "NMI_std": nmi.std(ddof=1) if several else np.nan,
                "num_domains": k,
                "num_cells": len(rows),
                "method": shown,
            }
    return pd.DataFrame.from_dict(table, orient="index")
