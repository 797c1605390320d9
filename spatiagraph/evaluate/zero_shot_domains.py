"""Domains by embeddings of a model that was trained elsewhere, beside those of genes."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.clustering.clusters import Clusterer
from spatiagraph.evaluate.baselines import Expression, neighbor_mean, pca
from spatiagraph.evaluate.clustering import score_domains
from spatiagraph.evaluate.inputs import as_embeddings


def score_zero_shot_domains(
    embeddings: Mapping[str, ArrayLike | Tensor],
    labels: ArrayLike | pd.Series | Tensor,
    counts: ArrayLike | csr_matrix,
    pos: ArrayLike | Tensor,
    *,
    methods: Sequence[str | Clusterer] = ("kmeans", "leiden"),
    num_seeds: int = 5,
    num_components: int = 50,
    num_neighbors: int = 6,
    ignore: Collection[object] = (),
    expression: Expression = "counts",
    progress: bool = False,
) -> pd.DataFrame:
    """Score clusters of frozen embeddings of one slide against its labelled domains.

    The protocol of `ST-Align <https://arxiv.org/abs/2411.16793>`_ in full: embeddings are
    standardised and reduced to principal components, and each clusterer finds as many clusters as
    there are labels. Two baselines are always there: ``"pca"``, components of the genes of each
    spot, and ``"pca_niche"``, their mean over the spot and its nearest, which tells how much of a
    lead is smoothing alone. Put image features and profiles of the provider among the embeddings.

    Args:
        embeddings: Name → embedding of each spot, ``[N, D]``; may be empty.
        labels: Domain of each spot, ``[N]``; missing values are no label.
        counts: Counts or normalised expression, ``[N, G]``.
        pos: Positions in µm, ``[N, 2]``.
        methods: Clusterers, or their names, as in
            :func:`~spatiagraph.evaluate.cluster_domains`.
        num_seeds: Clusterings to average over.
        num_components: Principal components of embeddings and of genes.
        num_neighbors: Neighbours of a spot that the mean of genes takes in.
        ignore: Labels that mean "not labelled".
        expression: Which of the two ``counts`` holds.
        progress: Show a bar.

    Returns:
        A row per method and embedding, ``ARI``, ``NMI`` and their deviations as in
        :func:`~spatiagraph.evaluate.score_domains`, indexed by ``(method, embedding)``.

    Raises:
        ValueError: If shapes do not fit, or an embedding has the name of a baseline.
    """
    genes = pca(counts, num_components, expression=expression)
    own = as_embeddings(embeddings, len(genes)) if embeddings else {}
    if taken := sorted({"pca", "pca_niche"} & set(own)):
        raise ValueError(f"Expected other names than those of baselines, got {', '.join(taken)}")
    table = {name: _components(z, num_components) for name, z in own.items()}
    table |= {"pca": genes, "pca_niche": neighbor_mean(genes, pos, num_neighbors)}
    found = {}
    for method in tqdm(methods, desc="domains", disable=not progress):
        name = method if isinstance(method, str) else repr(method)
        found[name] = score_domains(
            table, labels, method=method, num_seeds=num_seeds, ignore=ignore
        )
    return pd.concat(found, names=["method", "embedding"]).drop(columns="method")


def _components(z: NDArray[np.floating], num_components: int) -> NDArray[np.floating]:
    """Principal components of standardised columns."""
    scaled = StandardScaler().fit_transform(z)
    size = min(num_components, *scaled.shape)
    return PCA(size, random_state=0).fit_transform(scaled)
