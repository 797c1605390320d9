"""Probes: what a simple classifier can read from a frozen embedding, on cells held out together."""

import warnings
from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, precision_score
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.data.splits import Folds
from spatiagraph.evaluate.inputs import (
    UnscorableError,
    as_codes,
    as_embeddings,
    as_folds,
    training_cells,
)

Classifier: TypeAlias = Literal["lr", "mlp", "knn"] | BaseEstimator

MAJORITY = "majority"
"""Row of the table for the commonest label of the training cells."""


def score_probe(
    embeddings: Mapping[str, ArrayLike | Tensor],
    labels: ArrayLike | pd.Series | Tensor,
    folds: ArrayLike | Tensor | Folds,
    *,
    classifier: Classifier = "lr",
    min_cells: int = 10,
    ignore: Collection[object] = (),
    progress: bool = False,
) -> pd.DataFrame:
    r"""Score a classifier on each embedding by the labels of held-out cells.

    Each fold is predicted by a classifier trained on the remaining ones. Split cells into folds by
    :func:`~spatiagraph.data.splits.spatial_blocks`, or by donor: under a random split a cell's
    neighbours give its label away. The embeddings may have seen all cells but no label; to fit
    one on training cells alone, make it a step of the classifier
    (``make_pipeline(PCA(50), LogisticRegression())``), and compare like with like.

    For cells of many sections or donors, folds that leave out one at a time are
    :func:`~spatiagraph.data.splits.split_by_slide` and ``split_by_donor`` with
    ``num_folds=None``. :func:`random_folds` gives the random split that others report.

    ``macro_F1``, ``macro_precision`` and ``accuracy`` are those of all held-out predictions taken
    together, since a rare label may be missing from a fold. The columns ``…_mean`` and ``…_std``
    are over folds; the :math:`F_1` of a fold averages the labels that occur in it.

    Args:
        embeddings: Name → embedding of each cell, ``[N, D]``.
        labels: Label of each cell, ``[N]``; missing values and integers below 0 are no label.
        folds: Fold of each cell, ``[N]``, integers; below 0 the cell takes no part. Or
            :class:`~spatiagraph.data.splits.Folds`, whose margin keeps training away from them.
        classifier: ``"lr"``, logistic regression (``C = 1``) on columns standardised over training
            cells; ``"mlp"``, a hidden layer of 256 units on the same columns, with the penalty on
            weights of ``"lr"`` (100 epochs at most); ``"knn"``, majority of the 15 nearest
            training cells; or any scikit-learn classifier, of which copies are trained.
        min_cells: Labels of fewer cells are left out.
        ignore: Labels that mean "not labelled", such as ``("Ambiguous",)``.
        progress: Show a bar.

    Returns:
        One row per embedding and one, ``"majority"``, for the commonest label of the training
        cells: ``macro_F1``, ``macro_precision``, ``accuracy``, ``macro_F1_mean``,
        ``macro_F1_std``, ``macro_precision_mean``, ``macro_precision_std``, ``accuracy_mean``,
        ``accuracy_std``, ``num_classes``, ``num_cells``.

    Raises:
        ValueError: Shapes do not fit, fewer than two folds or two labels remain, or the training
            cells of a fold have one label only.

    Examples:
        >>> z = np.array([[0.0], [5.0], [0.2], [5.1], [0.1], [5.2]])
        >>> table = score_probe(
        ...     {"mine": z}, ["a", "b"] * 3, folds=[0, 0, 1, 1, 2, 2], min_cells=1
        ... )
        >>> table["accuracy"].to_dict()
        {'mine': 1.0, 'majority': 0.5}
    """
    codes = as_codes(labels, ignore)
    arrays = as_embeddings(embeddings, len(codes))
    if MAJORITY in arrays:
        raise ValueError(f"Expected no embedding named {MAJORITY!r}: that row is always there")
    split = as_folds(folds, len(codes))
    enough = np.bincount(codes[codes >= 0], minlength=1) >= min_cells
    rows = np.flatnonzero((codes >= 0) & (split.number >= 0) & enough[codes])
    truth, fold = codes[rows], split.number[rows]
    numbers = np.unique(fold)
    training = {number: training_cells(split, number)[rows] for number in numbers}
    _check_task(truth, training, min_cells, split.margin_um)

    probes = {name: (z[rows], _resolve(classifier)) for name, z in arrays.items()}
    probes[MAJORITY] = (np.zeros((len(rows), 1)), DummyClassifier(strategy="most_frequent"))
    table = {}
    with tqdm(total=len(probes) * len(numbers), desc="probe", disable=not progress) as bar:
        for name, (z, model) in probes.items():
            guess = np.empty_like(truth)
            for number in numbers:
                train, test = training[number], fold == number
                with warnings.catch_warnings():
                    if classifier == "mlp":  # 100 epochs are the protocol, settled or not
                        warnings.simplefilter("ignore", ConvergenceWarning)
                    trained = clone(model).fit(z[train], truth[train])
                guess[test] = trained.predict(z[test])
                bar.update()
            table[name] = _scores(truth, guess, fold)
    return pd.DataFrame.from_dict(table, orient="index")


def random_folds(
    labels: ArrayLike | pd.Series | Tensor,
    num_folds: int = 5,
    *,
    seed: int = 0,
    min_cells: int = 10,
    ignore: Collection[object] = (),
) -> NDArray[np.int64]:
    """Random folds with every label in all of them: five random splits of 80 and 20 %.

    Neighbours of a held-out cell are in training then, and give its label away to any embedding
    that looks at neighbours: report :func:`~spatiagraph.data.splits.spatial_blocks` beside it.

    Args:
        labels: Label of each cell, ``[N]``.
        num_folds: Number of folds.
        seed: The same seed gives the same folds.
        min_cells: Labels of fewer cells are left out, as by :func:`score_probe`.
        ignore: Labels that mean "not labelled".

    Returns:
        Fold of each cell, ``[N]`` in ``[0, num_folds)``; -1 for a cell that is left out.

    Raises:
        ValueError: No label has ``min_cells`` cells, or there are fewer of a label than folds.

    Examples:
        >>> folds = random_folds(["a", "a", "b", "b", None], num_folds=2, min_cells=1)
        >>> sorted(folds[:2].tolist()), sorted(folds[2:4].tolist()), int(folds[4])
        ([0, 1], [0, 1], -1)
    """
    codes = as_codes(labels, ignore)
    size = np.bincount(codes[codes >= 0], minlength=1)
    rows = np.flatnonzero((codes >= 0) & (size >= min_cells)[codes])
    smallest = int(size[np.unique(codes[rows])].min(initial=len(codes)))
    if not rows.size or not 2 <= num_folds <= smallest:
        raise UnscorableError(
            f"Expected 'num_folds' between 2 and the cells of the rarest label, got {num_folds} "
            f"for {len(rows)} cells of labels that {min_cells} cells or more have"
        )
    fold = np.full(len(codes), -1)
    splits = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    for number, (_, test) in enumerate(splits.split(np.zeros(len(rows)), codes[rows])):
        fold[rows[test]] = number
    return fold


def _resolve(classifier: Classifier) -> BaseEstimator:
    if classifier == "lr":
        return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=500))
    if classifier == "mlp":
        # scikit-learn divides alpha by the number of cells: 1 is what C = 1 is to "lr"
        network = MLPClassifier((256,), alpha=1.0, max_iter=100, random_state=0)
        return make_pipeline(StandardScaler(), network)
    if classifier == "knn":
        return KNeighborsClassifier(15)
    if isinstance(classifier, BaseEstimator):
        return classifier
    raise ValueError(
        f'Expected \'classifier\' "lr", "mlp", "knn" or a scikit-learn classifier, got '
        f"{classifier!r}"
    )


def _check_task(
    truth: NDArray[np.int64],
    training: Mapping[int, NDArray[np.bool_]],
    min_cells: int,
    margin_um: float,
) -> None:
    if len(training) < 2:
        raise UnscorableError(
            f"Expected at least two folds with labelled cells, got {len(training)} "
            f"({len(truth)} cells with a label that {min_cells} cells or more have)"
        )
    for number, train in training.items():
        found = len(np.unique(truth[train]))
        if found < 2:
            nearer = f", or a smaller 'margin_um' than {margin_um:.3g}" if margin_um else ""
            raise UnscorableError(
                f"Expected at least two labels to train on, got {found} outside of fold "
                f"{number}. Use other folds, or a smaller 'min_cells' than {min_cells}{nearer}"
            )


def _scores(
    truth: NDArray[np.int64], guess: NDArray[np.int64], fold: NDArray[np.int64]
) -> dict[str, float]:
    """Scores of all held-out cells together, and their mean and deviation over folds."""
    parts = [(truth[fold == f], guess[fold == f]) for f in np.unique(fold)]
    table: dict[str, float] = {name: metric(truth, guess) for name, metric in _METRICS.items()}
    for name, metric in _METRICS.items():
        values = np.array([metric(t, g) for t, g in parts])
        table[f"{name}_mean"] = float(values.mean())
        table[f"{name}_std"] = float(values.std(ddof=1))
    return {**table, "num_classes": len(np.unique(truth)), "num_cells": len(truth)}


def _macro_f1(truth: NDArray[np.int64], guess: NDArray[np.int64]) -> float:
    present = np.unique(truth)
    return float(f1_score(truth, guess, average="macro", labels=present, zero_division=0))


def _macro_precision(truth: NDArray[np.int64], guess: NDArray[np.int64]) -> float:
    present = np.unique(truth)
    return float(precision_score(truth, guess, average="macro", labels=present, zero_division=0))


def _accuracy(truth: NDArray[np.int64], guess: NDArray[np.int64]) -> float:
    return float(accuracy_score(truth, guess))


_METRICS = {
    "macro_F1": _macro_f1,
    "macro_precision": _macro_precision,
    "accuracy": _accuracy,
}
