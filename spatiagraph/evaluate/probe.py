"""Probes: what a simple classifier can read from a frozen embedding, on cells held out together."""

from collections.abc import Collection, Mapping
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.evaluate.inputs import as_codes, as_embeddings, as_folds

Classifier: TypeAlias = Literal["lr", "knn"] | BaseEstimator

MAJORITY = "majority"
"""Row of the table for the commonest label of the training cells."""


def score_probe(
    embeddings: Mapping[str, ArrayLike | Tensor],
    labels: ArrayLike | pd.Series | Tensor,
    folds: ArrayLike | Tensor,
    *,
    classifier: Classifier = "lr",
    min_cells: int = 10,
    ignore: Collection[object] = (),
    progress: bool = False,
) -> pd.DataFrame:
    r"""How well a classifier on each embedding predicts the labels of held-out cells.

    Each fold is predicted by a classifier trained on the others. Deal cells to folds by
    :func:`~spatiagraph.data.splits.spatial_blocks`, or by donor: under a random split a cell's
    neighbours give its label away. The embeddings may have seen all cells but no label; to fit
    one on training cells alone, make it a step of the classifier
    (``make_pipeline(PCA(50), LogisticRegression())``), and compare like with like.

    ``macro_F1`` and ``accuracy`` are those of all held-out predictions taken together, since a
    rare label may be missing from a fold. The columns ``…_mean`` and ``…_std`` are over folds; the
    :math:`F_1` of a fold averages the labels that occur in it.

    Args:
        embeddings: Name → embedding of each cell, ``[N, D]``.
        labels: Label of each cell, ``[N]``; missing values and integers below 0 are no label.
        folds: Fold of each cell, ``[N]``, integers; below 0 the cell takes no part.
        classifier: ``"lr"``, logistic regression (``C = 1``) on columns standardised over training
            cells; ``"knn"``, majority of the 15 nearest training cells; or any scikit-learn
            classifier, of which copies are trained.
        min_cells: Labels of fewer cells are left out.
        ignore: Labels that mean "not labelled", such as ``("Ambiguous",)``.
        progress: Show a bar.

    Returns:
        One row per embedding and one, ``"majority"``, for the commonest label of the training
        cells: ``macro_F1``, ``accuracy``, ``macro_F1_mean``, ``macro_F1_std``, ``accuracy_mean``,
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
    fold = as_folds(folds, len(codes))
    enough = np.bincount(codes[codes >= 0], minlength=1) >= min_cells
    rows = np.flatnonzero((codes >= 0) & (fold >= 0) & enough[codes])
    truth, fold = codes[rows], fold[rows]
    _check_task(truth, fold, min_cells)

    probes = {name: (z[rows], _resolve(classifier)) for name, z in arrays.items()}
    probes[MAJORITY] = (np.zeros((len(rows), 1)), DummyClassifier(strategy="most_frequent"))
    numbers = np.unique(fold)
    table = {}
    with tqdm(total=len(probes) * len(numbers), desc="probe", disable=not progress) as bar:
        for name, (z, model) in probes.items():
            guess = np.empty_like(truth)
            for number in numbers:
                test = fold == number
                guess[test] = clone(model).fit(z[~test], truth[~test]).predict(z[test])
                bar.update()
            table[name] = _scores(truth, guess, fold)
    return pd.DataFrame.from_dict(table, orient="index")


def _resolve(classifier: Classifier) -> BaseEstimator:
    if classifier == "lr":
        return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=500))
    if classifier == "knn":
        return KNeighborsClassifier(15)
    if isinstance(classifier, BaseEstimator):
        return classifier
    raise ValueError(
        f'Expected \'classifier\' "lr", "knn" or a scikit-learn classifier, got {classifier!r}'
    )


def _check_task(truth: NDArray[np.int64], fold: NDArray[np.int64], min_cells: int) -> None:
    numbers = np.unique(fold)
    if len(numbers) < 2:
        raise ValueError(
            f"Expected at least two folds with labelled cells, got {len(numbers)} "
            f"({len(truth)} cells with a label that {min_cells} cells or more have)"
        )
    for number in numbers:
        found = len(np.unique(truth[fold != number]))
        if found < 2:
            raise ValueError(
                f"Expected at least two labels to train on, got {found} outside of fold "
                f"{number}. Use other folds, or a smaller 'min_cells' than {min_cells}"
            )


def _scores(
    truth: NDArray[np.int64], guess: NDArray[np.int64], fold: NDArray[np.int64]
) -> dict[str, float]:
    """Scores of all held-out cells together, and their mean and deviation over folds."""
    parts = [(truth[fold == f], guess[fold == f]) for f in np.unique(fold)]
    f1 = np.array([_macro_f1(t, g) for t, g in parts])
    accuracy = np.array([accuracy_score(t, g) for t, g in parts])
    return {
        "macro_F1": _macro_f1(truth, guess),
        "accuracy": float(accuracy_score(truth, guess)),
        "macro_F1_mean": float(f1.mean()),
        "macro_F1_std": float(f1.std(ddof=1)),
        "accuracy_mean": float(accuracy.mean()),
        "accuracy_std": float(accuracy.std(ddof=1)),
        "num_classes": len(np.unique(truth)),
        "num_cells": len(truth),
    }


def _macro_f1(truth: NDArray[np.int64], guess: NDArray[np.int64]) -> float:
    present = np.unique(truth)
    return float(f1_score(truth, guess, average="macro", labels=present, zero_division=0))
