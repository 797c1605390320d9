"""Leiden clusters over a sweep of resolutions, as foundation models report them, and without it."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.model_selection import train_test_split
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.clustering.leiden import leiden, neighbor_graph
from spatiagraph.evaluate.baselines import Expression, neighbor_mean, pca
from spatiagraph.evaluate.inputs import (
    UnscorableError,
    as_codes,
    as_embeddings,
    as_expression,
    check_named,
)

RESOLUTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)

_MAX_DIMS = 50  # components of the baselines


def score_clusters(
    embeddings: Mapping[str, ArrayLike | Tensor],
    labels: ArrayLike | pd.Series | Tensor,
    counts: ArrayLike | csr_matrix | None = None,
    pos: ArrayLike | Tensor | None = None,
    *,
    slide: ArrayLike | Tensor | None = None,
    expression: Expression = "counts",
    resolutions: Sequence[float] = RESOLUTIONS,
    num_seeds: int = 5,
    max_cells: int | None = None,
    ignore: Collection[object] = (),
    progress: bool = False,
) -> pd.DataFrame:
    """Score Leiden clusters of each embedding against the labels, over all resolutions.

    An embedding wider than 50 is reduced to 50 principal components, each cell is connected to
    its 15 nearest (without weights), and Leiden (`"From Louvain to Leiden"
    <https://arxiv.org/abs/1810.08473>`_) clusters the graph at every resolution, anew for every
    seed. Three ways to pick from the sweep are distinguished:

    - ``ARI_best`` and ``NMI_best``, each at its best resolution. The labels pick, so these are
      optimistic, the more so the more resolutions there are; papers report them.
    - ``ARI_one`` and ``NMI_one``, at resolution 1. No label is looked at.
    - ``ARI_matched`` and ``NMI_matched``, at the resolution whose number of clusters is nearest
      to the number of labels. Only that number is looked at.

    Args:
        embeddings: Name → embedding of each cell, ``[N, D]``.
        labels: Label of each cell, ``[N]``; missing values and integers below 0 are no label, and
            those cells are left out before the graph is built.
        counts: Expression, ``[N, G]``: if given, the baselines ``pca50`` and ``depth`` are scored
            beside.
        pos: Cell centres in µm, ``[N, 2]``: with ``counts``, ``pca50_nbr15`` too, the mean over a
            cell and its 15 neighbours.
        slide: Section of each cell, ``[N]``.
        expression: What ``counts`` holds.
        resolutions: The sweep; 1 is added where it is missing.
        num_seeds: Clusterings to average over, with seeds 0, 1, ...
        max_cells: Cluster a sample of this size, the labels in proportion, drawn for every seed.
        ignore: Labels that mean "not labelled".
        progress: Show a bar.

    Returns:
        One row per embedding and baseline: the six scores, means over seeds with the *population*
        standard deviation as ``…_std``; ``num_clusters_one`` at resolution 1 and
        ``resolution_matched`` (means too), ``num_labels``, ``num_cells``.

    Raises:
        ValueError: An embedding has the name of a baseline or does not fit the labels, or fewer
            than two labels are there.
        ImportError: The extra ``[cluster]`` is not installed.
    """
    check_named(embeddings, "embeddings")
    truth = as_codes(labels, ignore)
    beside = {} if counts is None else _baselines(counts, pos, slide, expression)
    if taken := sorted({*embeddings} & {*beside}):
        raise ValueError(f"Expected other names than those of baselines, got {', '.join(taken)}")
    arrays = as_embeddings({**embeddings, **beside}, len(truth))
    if num_seeds < 1 or not resolutions or min(resolutions) <= 0:
        raise ValueError(
            "Expected at least one seed and resolutions above 0, got "
            f"{num_seeds} and {list(resolutions)}"
        )
    rows = np.flatnonzero(truth >= 0)
    num_labels = len(np.unique(truth[rows]))
    if num_labels < 2:
        raise UnscorableError(f"Expected at least two different labels, got {num_labels}")
    sweep = sorted({*map(float, resolutions), 1.0})
    table = {}
    with tqdm(total=len(arrays) * num_seeds, desc="leiden", disable=not progress) as bar:
        for name, z in arrays.items():
            runs, graph = [], None
            for seed in range(num_seeds):
                cells = _sample(rows, truth, max_cells, seed)
                if graph is None or len(cells) < len(rows):
                    graph = neighbor_graph(z[cells])
                found = [leiden(graph, resolution, seed) for resolution in sweep]
                runs.append(_scores(truth[cells], found, sweep, resolutions))
                bar.update()
            frame = pd.DataFrame(runs)
            std = frame.iloc[:, :6].std(ddof=0).add_suffix("_std")
            table[name] = {
                **frame.mean().to_dict(),
                **std.to_dict(),
                "num_labels": num_labels,
                "num_cells": len(rows) if max_cells is None else min(max_cells, len(rows)),
            }
    return pd.DataFrame.from_dict(table, orient="index")


def _baselines(
    counts: ArrayLike | csr_matrix,
    pos: ArrayLike | Tensor | None,
    slide: ArrayLike | Tensor | None,
    expression: Expression,
) -> dict[str, NDArray[np.floating]]:
    x = as_expression(counts)
    z = pca(x, _MAX_DIMS, expression=expression)
    depth = np.log1p(np.asarray(x.sum(axis=1, dtype=np.float64)))
    if pos is None:
        return {"pca50": z, "depth": depth}
    return {"pca50": z, "pca50_nbr15": neighbor_mean(z, pos, slide=slide), "depth": depth}


def _sample(
    rows: NDArray[np.int64], truth: NDArray[np.int64], max_cells: int | None, seed: int
) -> NDArray[np.int64]:
    if max_cells is None or max_cells >= len(rows):
        return rows
    kept, _ = train_test_split(rows, train_size=max_cells, stratify=truth[rows], random_state=seed)
    return np.sort(kept)


def _scores(
    truth: NDArray[np.int64],
    found: list[NDArray[np.int64]],
    sweep: list[float],
    asked: Sequence[float],
) -> dict[str, float]:
    """Scores of one sweep: at the best, at resolution 1 and at the true number of clusters."""
    ari = np.array([adjusted_rand_score(truth, labels) for labels in found])
    nmi = np.array([normalized_mutual_info_score(truth, labels) for labels in found])
    size = np.array([len(np.unique(labels)) for labels in found])
    searched = np.isin(sweep, np.asarray(asked, dtype=float))
    one = sweep.index(1.0)
    gap = np.abs(size - len(np.unique(truth)))
    matched = int(np.where(searched, gap, gap.max() + 1).argmin())
    return {
        "ARI_best": ari[searched].max(),
        "NMI_best": nmi[searched].max(),
        "ARI_one": ari[one],
        "NMI_one": nmi[one],
        "ARI_matched": ari[matched],
        "NMI_matched": nmi[matched],
        "num_clusters_one": size[one],
        "resolution_matched": sweep[matched],
    }
