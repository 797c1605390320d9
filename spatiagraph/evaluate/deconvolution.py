"""Deconvolution: shares of cell types in spots, beside non-negative least squares."""

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from spatiagraph.data.splits import Folds
from spatiagraph.evaluate.inputs import (
    as_embeddings,
    as_expression,
    as_folds,
    as_types,
    training_cells,
)
from spatiagraph.evaluate.neighborhoods import jensen_shannon

TRAIN_MEAN, NNLS = "train_mean", "nnls"

Profiles: TypeAlias = pd.DataFrame | Callable[[int], pd.DataFrame]
"""Mean expression of each type, ``[T, G]``, or a function of the fold that is held out."""


def type_profiles(counts: ArrayLike | csr_matrix, types: ArrayLike | pd.Series) -> pd.DataFrame:
    """Mean expression of the cells of each type, ``[T, G]``.

    Args:
        counts: Counts of single cells, ``[N, G]``.
        types: Type of each cell, ``[N]``.

    Raises:
        ValueError: If there is no type for each cell.

    Examples:
        >>> type_profiles([[2, 0], [4, 0], [0, 6]], ["T", "T", "B"]).loc["T"].tolist()
        [3.0, 0.0]
    """
    x, (code, names) = as_expression(counts), as_types(types)
    if len(code) != x.shape[0]:
        raise ValueError(f"Expected types of {x.shape[0]} cells, got {len(code)}")
    one_hot = csr_matrix((np.ones(len(code)), (code, np.arange(len(code)))))
    size = np.bincount(code, minlength=len(names))[:, None]
    return pd.DataFrame((one_hot @ x).toarray() / size, index=names)


def unmix(counts: ArrayLike | csr_matrix, profiles: pd.DataFrame) -> pd.DataFrame:
    r"""Shares of types in spots by non-negative least squares on mean profiles.

    .. math::
        \min_{\mathbf{w} \ge 0} \lVert \mathbf{x} - \mathbf{w} \mathbf{P} \rVert^2 , \qquad
        \mathbf{s} = \mathbf{w} / \textstyle\sum_t w_t

    A spot that no type explains has equal shares.

    Args:
        counts: Counts of spots, ``[N, G]``.
        profiles: Mean expression of each type, ``[T, G]``, the same genes.

    Returns:
        ``[N, T]``, a column for each type.

    Raises:
        ValueError: If genes do not fit.

    Examples:
        >>> profiles = pd.DataFrame([[2.0, 0.0], [0.0, 4.0]], index=["T", "B"])
        >>> unmix([[6, 4]], profiles).round(2).loc[0].to_dict()
        {'T': 0.75, 'B': 0.25}
    """
    x, p = as_expression(counts), profiles.to_numpy(dtype=np.float64)
    if x.shape[1] != p.shape[1]:
        raise ValueError(f"Expected profiles of {x.shape[1]} genes, got {p.shape[1]}")
    weight = np.array([nnls(p.T, row.toarray().ravel())[0] for row in x.astype(np.float64)])
    weight[weight.sum(axis=1) == 0] = 1
    return pd.DataFrame(weight / weight.sum(axis=1, keepdims=True), columns=profiles.index)


def score_deconvolution(
    embeddings: Mapping[str, ArrayLike | Tensor],
    shares: pd.DataFrame,
    folds: ArrayLike | Folds,
    *,
    counts: ArrayLike | csr_matrix | None = None,
    profiles: Profiles | None = None,
    baselines: Collection[str] = (TRAIN_MEAN, NNLS),
) -> pd.DataFrame:
    """Score the shares of cell types in held-out spots.

    On each embedding, a softmax regression is trained with the divergence of Kullback and Leibler
    between true and predicted shares (with the penalty ``C = 1`` on standardised columns) on the
    spots of the other folds. Beside them stand ``train_mean``, the mean shares of the training
    spots, and ``nnls``, :func:`unmix`, which sees no shares but the profiles of single cells.

    Spots of known shares come from single cells: :func:`~spatiagraph.data.spots_of_cells` with
    ``shares=``.

    Args:
        embeddings: Name → embedding of each spot, ``[N, D]``.
        shares: Share of each type in each spot, ``[N, T]``, with rows that sum to 1.
        folds: Fold of each spot, ``[N]``, integers; below 0 the spot takes no part. Or
            :class:`~spatiagraph.data.splits.Folds` with a margin.
        counts: Counts of spots, ``[N, G]``, for ``nnls``.
        profiles: Mean expression of each type in the same genes, or a function of the number of
            the fold that is held out: cells of held-out spots are no reference. Types are those
            of ``shares``.
        baselines: Which of the two to score.

    Returns:
        One row per embedding and baseline: ``pearson``, the mean over types of the correlation
        over spots; ``rmse``; ``js``, the mean Jensen–Shannon distance (root of the divergence in
        bits) of spots; each the mean over folds with ``…_std`` beside it; ``num_spots``.

    Raises:
        ValueError: If shapes do not fit, shares do not sum to 1, names clash, there are fewer than
            two folds, or ``nnls`` lacks counts or profiles of a type.
    """
    truth = shares.to_numpy(dtype=np.float64)
    arrays = as_embeddings(embeddings, len(truth))
    split = as_folds(folds, len(truth))
    fold = split.number
    _check(arrays, truth, fold, counts, profiles, baselines)
    numbers = np.unique(fold[fold >= 0])
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in (*arrays, *baselines)}
    x = None if counts is None else as_expression(counts)
    for number in numbers:
        train, test = training_cells(split, number), fold == number
        for name, z in arrays.items():
            runs[name].append(_scores(truth[test], _regressed(z[train], truth[train], z[test])))
        for name in baselines:
            if name == TRAIN_MEAN:
                guess = np.tile(truth[train].mean(axis=0), (int(test.sum()), 1))
            else:
                made = profiles(int(number)) if callable(profiles) else profiles
                found = unmix(x[test], made).reindex(columns=shares.columns)  # type: ignore[index, arg-type]
                if lacking := sorted(found.columns[found.isna().all()].astype(str)):
                    raise ValueError(f"Expected a profile of each type, got none of {lacking}")
                guess = found.to_numpy()
            runs[name].append(_scores(truth[test], guess))
    table = pd.DataFrame({name: pd.DataFrame(r).mean() for name, r in runs.items()}).T
    spread = pd.DataFrame({name: pd.DataFrame(r).std(ddof=1) for name, r in runs.items()}).T
    table = table.join(spread.add_suffix("_std"))
    return table.assign(num_spots=int((fold >= 0).sum()))


def _check(
    arrays: Mapping[str, NDArray],
    truth: NDArray[np.float64],
    fold: NDArray[np.int64],
    counts: object,
    profiles: object,
    baselines: Collection[str],
) -> None:
    if unknown := sorted({*baselines} - {TRAIN_MEAN, NNLS}):
        raise ValueError(f"Expected baselines among {TRAIN_MEAN}, {NNLS}, got {unknown}")
    if taken := sorted({*arrays} & {TRAIN_MEAN, NNLS}):
        raise ValueError(f"Expected other names than those of baselines, got {', '.join(taken)}")
    if not np.allclose(truth.sum(axis=1), 1, atol=1e-6) or (truth < 0).any():
        raise ValueError("Expected shares of 0 or more that sum to 1 in each spot")
    if len(np.unique(fold[fold >= 0])) < 2:
        raise ValueError("Expected at least two folds of spots, got fewer")
    if NNLS in baselines and (counts is None or profiles is None):
        raise ValueError("Expected 'counts' and 'profiles' for nnls; baselines=['train_mean'] else")


def _regressed(
    z: NDArray[np.floating], truth: NDArray[np.float64], asked: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Softmax regression on shares: each spot once per type in it, weighted by its share."""
    spot, kind = truth.nonzero()
    guess = np.zeros((len(asked), truth.shape[1]))
    seen = np.unique(kind)
    if len(seen) == 1:
        guess[:, seen] = 1
        return guess
    scaler = StandardScaler().fit(z)
    model = make_pipeline(scaler, LogisticRegression(C=1.0, max_iter=500))
    model.fit(z[spot], kind, logisticregression__sample_weight=truth[spot, kind])
    guess[:, seen] = model.predict_proba(asked)
    return guess


def _scores(truth: NDArray[np.float64], guess: NDArray[np.float64]) -> dict[str, float]:
    t, g = truth - truth.mean(axis=0), guess - guess.mean(axis=0)
    norm = np.sqrt((t**2).sum(axis=0) * (g**2).sum(axis=0))
    varies = (t**2).sum(axis=0) > 0  # a type that no spot has cannot be found
    r = np.divide((t * g).sum(axis=0), norm, out=np.zeros(len(norm)), where=norm > 1e-12)
    return {
        "pearson": float(r[varies].mean()) if varies.any() else float("nan"),
        "rmse": float(np.sqrt(((truth - guess) ** 2).mean())),
        "js": float(np.sqrt(jensen_shannon(truth, guess)).mean()),
    }
