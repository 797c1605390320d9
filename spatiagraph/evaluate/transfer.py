"""Transfer to donors that were never seen: labels, joint domains and retrieval, one left out."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, adjusted_rand_score, f1_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.clustering.clusters import Clusterer
from spatiagraph.clustering.names import as_clusterer
from spatiagraph.evaluate.cells import Cells
from spatiagraph.evaluate.donor_folds import Embed, as_donors, leave_one_out
from spatiagraph.evaluate.inputs import as_codes, as_embedding, as_expression, with_baselines
from spatiagraph.evaluate.transfer_baselines import BASELINES
from spatiagraph.graph.points import as_points

MAJORITY, CHANCE = "majority", "chance"
"""Rows of the table: the commonest training label, and random candidates."""

METRICS = ("macro_F1", "accuracy", "ARI", "precision")
"""Metrics of labels, joint domains and retrieval."""
GENE_METRICS = ("pearson_mean", "pearson_given_depth", "rmse")
"""Metrics of genes that were imputed, or predicted from images."""


def score_transfer(
    embeddings: Mapping[str, Embed],
    counts: ArrayLike | csr_matrix,
    pos: ArrayLike | Tensor,
    labels: ArrayLike | pd.Series,
    *,
    donor: ArrayLike,
    slide: ArrayLike | None = None,
    expression: str = "counts",
    baselines: Collection[str] | None = None,
    method: str | Clusterer = "kmeans",
    k: int = 10,
    num_seeds: int = 3,
    max_queries: int = 2000,
    ignore: Collection[object] = (),
    progress: bool = False,
) -> pd.DataFrame:
    r"""Score embeddings on each donor in turn, learned on the remaining donors.

    No donor is on both sides, and :func:`~spatiagraph.data.splits.check_no_leak` refuses a slide
    that two donors share. On the held-out donor:

    - ``macro_F1`` and ``accuracy`` of its labels by a logistic regression on the standardised
      embedding of the other donors;
    - ``ARI`` of its part of one clustering of all cells with its labels, mean over seeds;
    - ``precision``: share of the ``k`` nearest cells of the other donors that have the label of
      the query, mean over its cells.

    Beside the embeddings stand

    ========================= ================================================================
    ``pca30``                 components of variable genes, both chosen on training cells
    ``pca30_nbr15``           their mean over a cell and its 15 nearest
    ``pca30_nbr15_white``     the same, each component of one deviation
    ``pca30_nbr15_centered``  the same as ``pca30_nbr15``, less the mean of each slide
    ``harmony``               ``pca30_nbr15`` after Harmony over slides; like the one before, it
                              sees the held-out cells without their labels. Extra ``[harmony]``;
                              asked for by name, or run where it is installed
    ``sqrt_expression``       square roots of the 2,000 most variable genes, at one depth; labels
                              alone
    ========================= ================================================================

    and ``majority`` and ``chance``.

    Args:
        embeddings: Name → function of the mask of training cells that gives the embedding of all
            cells. It is called once for each donor.
        counts: Counts or normalised expression, ``[N, G]``.
        pos: Cell centres in µm, ``[N, 2]``.
        labels: Label of each cell, ``[N]``; cells without one take part as neighbours only.
        donor: Donor of each cell, ``[N]``, two or more.
        slide: Section of each cell, ``[N]``; donors are sections when not given.
        expression: Which of the two ``counts`` holds.
        baselines: Some of the names above; all that are installed by default.
        method: What clusters.
        k: Neighbours that are retrieved.
        num_seeds: Clusterings.
        max_queries: Cells of a donor that are searched for, at most.
        ignore: Labels that mean "not labelled".
        progress: Show a bar.

    Returns:
        One row per embedding and held-out donor: ``embedding``, ``donor``, the metrics,
        ``num_cells``. Means and deviations over donors: :func:`summarize_transfer`.

    Raises:
        ValueError: There are fewer than two donors with labels, a donor is missing, a slide has
            two donors, an embedding has the name of a baseline, or arrays do not fit.
        ImportError: ``harmony`` is asked for and not installed.
    """
    x, points = as_expression(counts), as_points(pos)
    truth = as_codes(labels, ignore)
    who = as_donors(donor, x.shape[0])
    where = who.to_numpy() if slide is None else np.asarray(slide)
    sizes = {"labels": len(truth), "slide": len(where), "pos": len(points)}
    for name, size in sizes.items():
        if size != x.shape[0]:
            raise ValueError(f"Expected '{name}' for each of {x.shape[0]} cells, got {size}")
    donors = [name for name in pd.unique(who) if (truth[who == name] >= 0).any()]
    if len(donors) < 2:
        raise ValueError(f"Expected at least two donors with labels, got {len(donors)}")
    cells = Cells(x, points, where, expression)
    wanted = [n for n, b in BASELINES.items() if b.installed()] if baselines is None else baselines
    made: dict[str, Embed] = {key: partial(one.embed, cells) for key, one in BASELINES.items()}
    methods = with_baselines(embeddings, made, wanted)
    if taken := sorted({*embeddings} & {MAJORITY, CHANCE}):
        raise ValueError(f"Expected other names than those of baselines, got {', '.join(taken)}")
    rows = []
    with tqdm(total=len(donors) * len(methods), desc="transfer", disable=not progress) as bar:
        for held_out, train in leave_one_out(who, where, donors):
            fold = _Fold(truth, train, as_clusterer(method), k, num_seeds, max_queries)
            for embedding, embed in methods.items():
                z = as_embedding(embed(train), embedding)
                labels_only = embedding in BASELINES and BASELINES[embedding].labels_only
                rows.append(
                    {"embedding": embedding, "donor": held_out, **fold.score(z, labels_only)}
                )
                bar.update()
            rows.append({"embedding": MAJORITY, "donor": held_out, **fold.majority()})
            rows.append({"embedding": CHANCE, "donor": held_out, **fold.chance()})
    return pd.DataFrame(rows)


def summarize_transfer(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each metric over held-out donors, with the deviation over donors beside it.

    Args:
        table: As :func:`score_transfer`, :func:`score_transfer_imputation` or
            :func:`score_transfer_images` gives it; metrics without any value are left out.

    Returns:
        One row per embedding: the metrics, each with ``…_std``, and ``num_donors``.
    """
    metrics = [m for m in (*METRICS, *GENE_METRICS) if m in table and table[m].notna().any()]
    by_name = table.groupby("embedding", sort=False)[metrics]
    mean, deviation = by_name.mean(), by_name.std(ddof=1).add_suffix("_std")
    columns = [column for metric in metrics for column in (metric, f"{metric}_std")]
    summary = mean.join(deviation)[columns]
    summary["num_donors"] = table.groupby("embedding", sort=False)["donor"].nunique()
    return summary


@dataclass(frozen=True, eq=False)
class _Fold:
    """One donor held out."""

    truth: NDArray[np.int64]
    train: NDArray[np.bool_]
    clusterer: Clusterer
    k: int
    num_seeds: int
    max_queries: int

    @property
    def seen(self) -> NDArray[np.int64]:
        """Labelled cells of the other donors."""
        return np.flatnonzero(self.train & (self.truth >= 0))

    @property
    def held_out(self) -> NDArray[np.int64]:
        """Labelled cells of the donor."""
        return np.flatnonzero(~self.train & (self.truth >= 0))

    def score(self, z: NDArray[np.floating], labels_only: bool) -> dict[str, float]:
        if len(z) != len(self.truth):
            raise ValueError(f"Expected a row for each of {len(self.truth)} cells, got {len(z)}")
        model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=500))
        model.fit(z[self.seen], self.truth[self.seen])
        result = self._labels(model.predict(z[self.held_out]))
        if not labels_only:
            result |= {"ARI": self._joint(z), "precision": self._precision(z)}
        return result

    def majority(self) -> dict[str, float]:
        model = DummyClassifier(strategy="most_frequent")
        model.fit(np.zeros((len(self.seen), 1)), self.truth[self.seen])
        return self._labels(model.predict(np.zeros((len(self.held_out), 1))))

    def chance(self) -> dict[str, float]:
        size = self.truth.max() + 1
        share = np.bincount(self.truth[self.seen], minlength=size) / len(self.seen)
        hit = float(share[self.truth[self.held_out]].mean())
        return {**dict.fromkeys(METRICS, np.nan), "precision": hit, "num_cells": len(self.held_out)}

    def _labels(self, guess: NDArray[np.int64]) -> dict[str, float]:
        truth = self.truth[self.held_out]
        f1 = f1_score(truth, guess, average="macro", labels=np.unique(truth), zero_division=0)
        return {
            "macro_F1": float(f1),
            "accuracy": float(accuracy_score(truth, guess)),
            "ARI": np.nan,
            "precision": np.nan,
            "num_cells": len(truth),
        }

    def _joint(self, z: NDArray[np.floating]) -> float:
        num_domains = len(np.unique(self.truth[self.truth >= 0]))
        rows = np.flatnonzero(self.truth >= 0)
        held_out = ~self.train[rows]
        found = [
            self.clusterer(z[rows], num_domains, seed).labels[held_out]
            for seed in range(self.num_seeds)
        ]
        truth = self.truth[rows][held_out]
        return float(np.mean([adjusted_rand_score(truth, labels) for labels in found]))

    def _precision(self, z: NDArray[np.floating]) -> float:
        queries = self.held_out
        if len(queries) > self.max_queries:
            rng = np.random.default_rng(0)
            queries = np.sort(rng.choice(queries, self.max_queries, replace=False))
        search = NearestNeighbors(n_neighbors=min(self.k, len(self.seen))).fit(z[self.seen])
        near = search.kneighbors(z[queries], return_distance=False)
        return float((self.truth[self.seen][near] == self.truth[queries][:, None]).mean())
