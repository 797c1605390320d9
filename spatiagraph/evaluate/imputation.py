"""Genes that were not measured, predicted from those that were, on tissue not trained on."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.data.splits import Folds, spatial_blocks
from spatiagraph.evaluate.baselines import Expression, log_normalize
from spatiagraph.evaluate.cells import Cells
from spatiagraph.evaluate.inputs import (
    as_embedding,
    as_expression,
    as_folds,
    training_cells,
    with_baselines,
)
from spatiagraph.evaluate.mapping import map_expression
from spatiagraph.evaluate.prediction import mean_and_std, prediction_scores
from spatiagraph.graph.build import knn_graph
from spatiagraph.graph.points import as_points, slide_rows

_K = 15
_ALPHAS = np.logspace(-1, 6, 15)


@dataclass(frozen=True, eq=False)
class ImputationSplit:
    r"""Visible part of one split: all but the hidden genes of the test cells.

    Predictions are on the scale of :attr:`target`, :math:`\log(1 + x \, t / n)` with ``x`` the
    count of a hidden gene, ``n`` the cell's total over the whole panel and ``t`` =
    :attr:`depth`. That total holds hidden counts, so it is not known in test cells; inputs are
    brought to depth over visible genes alone.

    Args:
        number: Which split, in ``[0, num_splits)``; also the seed of the baselines.
        counts: Visible genes of all cells, ``[N, V]``, as they came (counts or normalised).
        train_counts: Whole panel of the training cells, ``[n_train, G]``.
        target: Hidden genes of the training cells on the scale to predict, ``[n_train, H]``.
        train: Rows of the training cells, ``[n_train]``; with a margin, not all the others.
        test: Rows of the test cells, ``[n_test]``.
        visible: Columns of the visible genes in the panel, ``[V]``.
        hidden: Columns of the hidden genes in the panel, ``[H]``.
        pos: Cell centres in µm, ``[N, 2]``.
        slide: Section of each cell, ``[N]``, if there are several.
        expression: Whether ``counts`` holds counts or normalised values.
        depth: Depth that whole cells are brought to, :math:`t`; 1 for normalised values, which
            are not.
    """

    number: int
    counts: csr_matrix
    train_counts: csr_matrix
    target: NDArray[np.float32]
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    visible: NDArray[np.int64]
    hidden: NDArray[np.int64]
    pos: NDArray[np.float64]
    slide: NDArray | None = None
    expression: Expression = "counts"
    depth: float = 1.0

    @cached_property
    def log(self) -> NDArray[np.float32]:
        """Visible genes, log-normalised over themselves, ``[N, V]``."""
        return log_normalize(self.counts, expression=self.expression).toarray()


Method: TypeAlias = Callable[[ImputationSplit], ArrayLike | Tensor]
"""From a split to the hidden genes of its test cells, ``[n_test, H]``."""


def imputation_splits(
    counts: ArrayLike | csr_matrix,
    pos: ArrayLike | Tensor,
    *,
    slide: ArrayLike | Tensor | None = None,
    expression: Expression = "counts",
    num_splits: int = 5,
    min_cells: int = 10,
    folds: ArrayLike | Tensor | Folds | None = None,
    seed: int = 0,
) -> Iterator[tuple[ImputationSplit, NDArray[np.float32]]]:
    """Splits of genes and cells at once, each with the truth.

    Genes seen in ``min_cells`` cells or more are split into ``num_splits`` disjoint sets, and cells
    to as many folds of :func:`~spatiagraph.data.splits.spatial_blocks`, unless ``folds`` are given.
    In split ``i`` the genes of set ``i`` are hidden, and predicted in the cells of fold ``i``.

    Args:
        counts: Counts or normalised expression, ``[N, G]``.
        pos: Cell centres in µm, ``[N, 2]``.
        slide: Section of each cell, ``[N]``.
        expression: Which of the two ``counts`` holds.
        num_splits: Number of splits, where there are no ``folds``; 5 hides a fifth of the genes in
            a fifth of the tissue.
        min_cells: Genes seen in fewer cells take no part.
        folds: Fold of each cell, ``[N]`` integers, in place of blocks, one split each: donors, or
            :class:`~spatiagraph.data.splits.Folds` with a margin. Below 0 the cell takes no part.
        seed: The same seed gives the same splits.

    Yields:
        A split, and the hidden genes of its test cells, ``[n_test, H]``.

    Raises:
        ValueError: Positions do not fit the counts, there are fewer genes than splits, or the
            margin leaves no cell to train on.
    """
    x, points = as_expression(counts), as_points(pos)
    if len(points) != x.shape[0]:
        raise ValueError(
            f"Expected a position for each of {x.shape[0]} cells, got {len(points)} positions"
        )
    section = None if slide is None else np.asarray(slide)
    given = None if folds is None else as_folds(folds, len(points))
    num_splits = num_splits if given is None else len(given.numbers)
    genes = np.flatnonzero(x.getnnz(axis=0) >= min_cells)
    if not 2 <= num_splits <= len(genes):
        raise ValueError(
            f"Expected 'num_splits' between 2 and the number of genes seen in {min_cells} cells "
            f"or more, got {num_splits} for {len(genes)} such genes"
        )
    part = np.random.default_rng(seed).permutation(np.arange(len(genes)) % num_splits)
    if given is None:
        given = Folds(spatial_blocks(points, num_folds=num_splits, seed=seed, slide=section))
    total = np.asarray(x.sum(axis=1, dtype=np.float64)).ravel()
    depth = float(np.median(total[total > 0])) if expression == "counts" else 1.0
    cells = Cells(x, points, section, expression)
    for number, fold in enumerate(given.numbers):
        yield hide_genes(
            cells,
            genes[part == number],
            visible=genes[part != number],
            train=np.flatnonzero(training_cells(given, fold)),
            test=np.flatnonzero(given.number == fold),
            depth=depth,
            number=number,
        )


def hide_genes(
    cells: Cells,
    hidden: NDArray[np.int64],
    *,
    visible: NDArray[np.int64],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    depth: float,
    number: int = 0,
    panel: NDArray[np.int64] | None = None,
) -> tuple[ImputationSplit, NDArray[np.float32]]:
    """Hide genes of test cells: a split, and the truth.

    Args:
        cells: All cells.
        hidden: Columns of the hidden genes, ``[H]``.
        visible: Columns of the visible genes, ``[V]``.
        train: Rows of the training cells, ``[n_train]``.
        test: Rows of the test cells, ``[n_test]``.
        depth: Depth that whole cells are brought to.
        number: Number of the split.
        panel: Sorted columns of the genes that make up the total of a cell, ``[P]``, the hidden
            ones among them; all of them by default.

    Returns:
        The split, and the hidden genes of its test cells, ``[n_test, H]``.
    """
    x = cells.counts
    expression = cast(Expression, cells.expression)
    whole, place = (x, hidden) if panel is None else (x[:, panel], np.searchsorted(panel, hidden))
    target = log_normalize(whole, depth, expression=expression)[:, place].toarray()
    split = ImputationSplit(
        number=number,
        counts=x[:, visible],
        train_counts=x[train],
        target=target[train],
        train=train,
        test=test,
        visible=visible,
        hidden=hidden,
        pos=cells.pos,
        slide=cells.slide,
        expression=expression,
        depth=depth,
    )
    return split, target[test]


def score_imputation(
    methods: Mapping[str, Method],
    counts: ArrayLike | csr_matrix,
    pos: ArrayLike | Tensor,
    *,
    slide: ArrayLike | Tensor | None = None,
    expression: Expression = "counts",
    num_splits: int = 5,
    min_cells: int = 10,
    folds: ArrayLike | Tensor | Folds | None = None,
    seed: int = 0,
    baselines: Collection[str] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Score the prediction of hidden genes in held-out tissue.

    The splits are those of :func:`imputation_splits`. A method is a function of an
    :class:`ImputationSplit`, so that it can be trained anew for every split; an embedding that
    was computed with all genes has seen the answer. :func:`ridge_on` makes a method of a function
    that embeds the cells of a split.

    ======================= ==================================================================
    ``train_mean``          each gene's mean over training cells
    ``ridge_depth``         ridge on the total of the visible genes, and nothing else
    ``ridge``               ridge on the visible genes
    ``knn_expr``            mean of the 15 training cells closest in 30 principal components
    ``nbr_mean_train``      mean of the 15 training cells closest in space
    ``ridge_own_nbr``       ridge on the visible genes of the cell and the mean of 15 neighbours
    ``tangram_like``        training cells mapped onto the tissue by their visible genes, as
                            :func:`map_expression` does; slower, and only where it is named
    ======================= ==================================================================

    Ridge standardises its inputs over training cells, and chooses one strength of 15 between 0.1
    and 1e6 for all genes by leave-one-out error on them.

    Args:
        methods: Name → method. May be empty, for the baselines alone.
        counts: Counts or normalised expression, ``[N, G]``.
        pos: Cell centres in µm, ``[N, 2]``.
        slide: Section of each cell, ``[N]``; no neighbours across sections.
        expression: Which of the two ``counts`` holds.
        num_splits: Disjoint sets of hidden genes, and blocks of tissue, where there are no
            ``folds``.
        min_cells: Genes seen in fewer cells take no part.
        folds: Fold of each cell, ``[N]`` integers, in place of blocks, one split each: donors, or
            :class:`~spatiagraph.data.splits.Folds` with a margin. Below 0 the cell takes no part.
        seed: The same seed gives the same splits.
        baselines: Some of the names above; all but ``tangram_like`` by default.
        progress: Show a bar.

    Returns:
        One row per method and baseline: ``pearson_mean`` and ``pearson_median`` over hidden genes,
        ``rmse`` the mean over genes, ``mse``, each the mean over splits with ``…_std`` beside it;
        ``num_genes`` hidden in turn, ``num_cells`` and ``num_splits``.

    Raises:
        ValueError: A method has the name of a baseline or returns another shape, a baseline is
            not known, or arrays do not fit.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> counts = rng.poisson(3.0, (40, 10))
        >>> zeros = lambda split: np.zeros((len(split.test), len(split.hidden)))
        >>> table = score_imputation(
        ...     {"mine": zeros}, counts, rng.uniform(0, 99, (40, 2)), baselines=["train_mean"]
        ... )
        >>> table["pearson_mean"].to_dict()
        {'mine': 0.0, 'train_mean': 0.0}
    """
    names = list(BASELINES) if baselines is None else baselines
    every = with_baselines(methods, BASELINES | ON_REQUEST, names)
    splits = imputation_splits(
        counts,
        pos,
        slide=slide,
        expression=expression,
        num_splits=num_splits,
        min_cells=min_cells,
        folds=folds,
        seed=seed,
    )
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in every}
    num_genes = num_cells = 0
    if folds is not None:
        num_splits = len(as_folds(folds, np.shape(counts)[0]).numbers)
    with tqdm(total=len(every) * num_splits, desc="imputation", disable=not progress) as bar:
        for split, truth in splits:
            num_genes, num_cells = num_genes + truth.shape[1], num_cells + truth.shape[0]
            for name, method in every.items():
                runs[name].append(prediction_scores(truth, _as_array(method(split))))
                bar.update()
    sizes = {"num_genes": num_genes, "num_cells": num_cells, "num_splits": num_splits}
    table = {name: {**mean_and_std(scores), **sizes} for name, scores in runs.items()}
    return pd.DataFrame.from_dict(table, orient="index")


def ridge_on(
    embed: Callable[[ImputationSplit], ArrayLike | Tensor], *, with_genes: bool = False
) -> Method:
    """A method of imputation: ridge regression from an embedding to the hidden genes.

    The embedding must not have seen the hidden genes: ``embed`` gets the visible ones.

    Args:
        embed: From a split to an embedding of all its cells, ``[N, D]``.
        with_genes: Regress on the visible genes themselves, too; what the embedding knows beyond
            them shows against the baseline ``ridge``.

    Examples:
        >>> method = ridge_on(lambda split: split.log[:, :2], with_genes=True)
    """

    def method(split: ImputationSplit) -> NDArray[np.floating]:
        z = as_embedding(embed(split), "the embedding")
        if len(z) != len(split.pos):
            raise ValueError(
                f"Expected an embedding with a row for each of {len(split.pos)} cells, got "
                f"{len(z)} rows"
            )
        return _ridge(np.concatenate([split.log, z], axis=1) if with_genes else z, split)

    return method


def _ridge(features: NDArray[np.floating], split: ImputationSplit) -> NDArray[np.floating]:
    scaler = StandardScaler().fit(features[split.train])
    model = RidgeCV(_ALPHAS).fit(scaler.transform(features[split.train]), split.target)
    guess = model.predict(scaler.transform(features[split.test]))
    return guess.reshape(len(split.test), -1)


def _train_mean(split: ImputationSplit) -> NDArray[np.floating]:
    return np.broadcast_to(split.target.mean(axis=0), (len(split.test), len(split.hidden)))


def _ridge_depth(split: ImputationSplit) -> NDArray[np.floating]:
    return _ridge(np.log1p(np.asarray(split.counts.sum(axis=1, dtype=np.float64))), split)


def _ridge_genes(split: ImputationSplit) -> NDArray[np.floating]:
    return _ridge(split.log, split)


def _ridge_own_nbr(split: ImputationSplit) -> NDArray[np.floating]:
    near = knn_graph(split.pos, _K, slide=split.slide)[0].numpy().reshape(-1, _K)
    mean = sum(split.log[column] for column in near.T) / np.float32(_K)
    return _ridge(np.concatenate([split.log, mean], axis=1), split)


def _knn_expr(split: ImputationSplit) -> NDArray[np.floating]:
    size = min(30, len(split.train), split.log.shape[1])
    model = PCA(size, random_state=split.number).fit(split.log[split.train])
    index = NearestNeighbors(n_neighbors=min(_K, len(split.train)))
    index.fit(model.transform(split.log[split.train]))
    near = index.kneighbors(model.transform(split.log[split.test]), return_distance=False)
    return split.target[near].mean(axis=1)


def _nbr_mean_train(split: ImputationSplit) -> NDArray[np.floating]:
    guess = np.array(_train_mean(split))  # stays where a section has no training cell
    place = np.full(len(split.pos), -1)
    place[split.train] = np.arange(len(split.train))
    row = np.full(len(split.pos), -1)
    row[split.test] = np.arange(len(split.test))
    for cells in slide_rows(split.slide, len(split.pos)):
        known, asked = cells[place[cells] >= 0], cells[row[cells] >= 0]
        if len(known) and len(asked):
            k = min(_K, len(known))
            near = cKDTree(split.pos[known]).query(split.pos[asked], k=range(1, k + 1))[1]
            guess[row[asked]] = split.target[place[known][near]].mean(axis=1)
    return guess


BASELINES: dict[str, Method] = {
    "train_mean": _train_mean,
    "ridge_depth": _ridge_depth,
    "ridge": _ridge_genes,
    "knn_expr": _knn_expr,
    "nbr_mean_train": _nbr_mean_train,
    "ridge_own_nbr": _ridge_own_nbr,
}


def _tangram_like(split: ImputationSplit) -> NDArray[np.floating]:
    return map_expression(split.log[split.train], split.log[split.test], split.target)


ON_REQUEST: dict[str, Method] = {"tangram_like": _tangram_like}
"""Baselines that take too long to stand in every table."""


def _as_array(prediction: ArrayLike | Tensor) -> NDArray[np.floating]:
    if isinstance(prediction, Tensor):
        prediction = prediction.detach().cpu().numpy()
    return np.asarray(prediction)
