"""Expression from images: ridge on frozen image features, tissue held out."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph._optional import require
from spatiagraph.data.splits import Folds
from spatiagraph.evaluate.baselines import Expression, log_normalize
from spatiagraph.evaluate.genes import standardized_variance
from spatiagraph.evaluate.inputs import (
    as_embeddings,
    as_expression,
    as_folds,
    check_named,
    training_cells,
)
from spatiagraph.evaluate.prediction import depth_terms, mean_and_std, prediction_scores

Strength: TypeAlias = Literal["groups", "hest"]
Regressor: TypeAlias = Literal["ridge", "xgboost"]
GeneSet: TypeAlias = Literal["var250", "mean250", "hvg50", "all"]

TRAIN_MEAN = "train_mean"
"""Row of the table for each gene's mean over training cells."""
DEPTH_ORACLE = "depth_oracle"
"""Row of the table for ridge on the test cell's own total count, which no image shows."""

LAYER_MARKERS = (
    "AQP4", "HPCAL1", "CUX2", "RORB", "PCP4", "KRT17", "MBP", "MOBP", "SNAP25",
)  # fmt: skip
"""Genes of the layers of the human cortex, after
`Maynard et al. (2021) <https://doi.org/10.1038/s41593-020-00787-0>`_."""

_ALPHAS = np.logspace(0, 7, 15)


def choose_genes(counts: csr_matrix, genes: GeneSet, log: csr_matrix) -> NDArray[np.int64]:
    """Columns of genes worth predicting, by the training cells.

    Args:
        counts: Counts of the training cells, ``[n, G]``.
        genes: ``"var250"``, the genes whose ``log`` varies most of those seen in a tenth of the
            cells; ``"mean250"``, those of the highest mean count; ``"hvg50"``, the most variable
            by :func:`~spatiagraph.evaluate.genes.standardized_variance`; ``"all"``.
        log: Log-normalised counts, ``[n, G]``.

    Returns:
        Columns; fewer where there are fewer genes.

    Raises:
        ValueError: An unknown set, or no gene is seen in a tenth of the cells.
    """
    if genes not in get_args(GeneSet):
        raise ValueError(f"Expected 'genes' among {', '.join(get_args(GeneSet))}, got {genes!r}")
    if genes == "all":
        return np.arange(counts.shape[1])
    if genes == "mean250":
        return np.argsort(-np.asarray(counts.mean(axis=0)).ravel())[:250]
    if genes == "hvg50":
        return np.sort(np.argsort(-standardized_variance(counts), kind="stable")[:50])
    seen = np.flatnonzero(counts.getnnz(axis=0) >= 0.1 * counts.shape[0])
    if not seen.size:
        raise ValueError(
            'Expected genes that a tenth of the training cells show, got none. Pass genes="all"'
        )
    return seen[np.argsort(-log[:, seen].toarray().var(axis=0))[:250]]


def score_image_to_genes(
    features: Mapping[str, ArrayLike | Tensor],
    counts: ArrayLike | csr_matrix,
    folds: ArrayLike | Tensor | Folds,
    *,
    groups: ArrayLike | None = None,
    genes: GeneSet | ArrayLike = "var250",
    target: float | None = 1e6,
    num_components: int | None = None,
    strength: Strength = "groups",
    regressor: Regressor = "ridge",
    held_out: Sequence[int] | None = None,
    subsets: Mapping[str, ArrayLike] | None = None,
    expression: Expression = "counts",
    progress: bool = False,
) -> pd.DataFrame:
    """Score genes predicted from frozen image features, in held-out tissue.

    ``folds`` of donors, ``num_components=256``, ``genes="hvg50"`` and ``strength="hest"`` or
    ``regressor="xgboost"`` are HEST-Bench with patients held out.

    The protocol of `"HEST-1k" <https://arxiv.org/abs/2406.16192>`_ with ridge regression: features
    are standardised over training cells, reduced to ``num_components`` principal components of
    them on request, and regressed on the logarithm of expression. One strength of 15 between 1 and
    1e7 serves all genes: the one of least error when each group of training cells is left out; or,
    on request, the :math:`100 / (F G)` of HEST, for :math:`F` features and :math:`G` genes.

    A spot's total count follows from how many cells it holds, so images do predict it, and every
    gene follows it. ``pearson_given_depth`` is what is left when measured and predicted values
    have lost what the logarithm of the total and its square explain. Two baselines are always
    there, ``"train_mean"``, and ``"depth_oracle"``: ridge on that total itself, measured in the
    test cell. :func:`~spatiagraph.evaluate.image_baselines` has two more, of images.

    Args:
        features: Name → image features of each cell, ``[N, F]``. They may have seen all images
            but no gene. May be empty, for the baselines alone.
        counts: Counts or normalised expression, ``[N, G]``.
        folds: Fold of each cell, ``[N]``, integers, each held out in turn: sections, donors or
            :func:`~spatiagraph.data.splits.spatial_blocks`; below 0 the cell takes no part. Or
            :class:`~spatiagraph.data.splits.Folds` with a margin: windows nearer than the diagonal
            of one share pixels.
        groups: Group of each cell, ``[N]``, for the choice of strength; the folds by default,
            which takes three of them or more.
        genes: Genes to predict: a name of :func:`choose_genes`, chosen anew in every fold, or
            columns.
        target: Depth that cells are brought to, 1e6 for counts per million; ``None`` for the
            median of all cells.
        num_components: Principal components to keep of wider features; 256 in HEST.
        strength: Of the ridge: ``"groups"``, chosen on groups left out, or ``"hest"``.
        regressor: ``"xgboost"`` for the boosted trees of HEST-Bench in its place
            (:func:`hest_xgboost`); the depth oracle stays a ridge.
        held_out: Folds to predict, of features whose encoder has seen the genes of the others; all
            by default.
        subsets: Name → genes that are scored apart too, columns of ``counts``, such as those of
            :data:`LAYER_MARKERS`; predicted whether ``genes`` has them or not.
        expression: Which of the two ``counts`` holds.
        progress: Show a bar.

    Returns:
        One row per name and baseline: ``pearson_mean``, ``pearson_median``, ``rmse`` and ``mse``
        over genes, ``pearson_given_depth``, each the mean over folds with ``…_std`` beside it;
        with ``subsets`` each also as ``…_NAME``, and as ``…_other`` for the genes in none;
        ``num_genes``, ``num_cells``, ``num_folds``.

    Raises:
        ValueError: Shapes do not fit, names clash, the strength or regressor is unknown, there
            are too few folds or groups, or a subset has no gene, or one that does not exist.
        ImportError: ``"xgboost"`` without xgboost; says how to install it.
    """
    if regressor not in get_args(Regressor):
        raise ValueError(f"Expected 'regressor' in {get_args(Regressor)}, got {regressor!r}")
    if strength not in get_args(Strength):
        raise ValueError(f"Expected 'strength' in {get_args(Strength)}, got {strength!r}")
    check_named(features, "features")
    x = as_expression(counts)
    arrays = as_embeddings(features, x.shape[0]) if features else {}
    if taken := sorted({*arrays} & {TRAIN_MEAN, DEPTH_ORACLE}):
        raise ValueError(f"Expected other names than those of baselines, got {', '.join(taken)}")
    split = as_folds(folds, x.shape[0])
    fold = split.number
    group = fold if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if group.shape != fold.shape:
        raise ValueError(f"Expected a group for each of {len(fold)} cells, got {group.shape}")
    numbers = np.unique(fold[fold >= 0])
    if len(numbers) < 2:
        raise ValueError(f"Expected at least two folds, got {len(numbers)}")
    if held_out is not None:
        unknown = sorted({*held_out} - {*numbers.tolist()})
        if unknown or not len(held_out):
            raise ValueError(f"Expected 'held_out' among the folds, got {unknown or 'none'}")
        numbers = np.unique(held_out)
    if strength == "groups":
        _check_groups(split, group, numbers)
    apart = _columns_of(subsets, x.shape[1])
    depth = depth_terms(x)
    inputs: dict[str, NDArray | None] = {**arrays, TRAIN_MEAN: None, DEPTH_ORACLE: depth}
    log = log_normalize(x, target, expression=expression)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in inputs}
    num_genes = 0
    with tqdm(total=len(inputs) * len(numbers), desc="genes", disable=not progress) as bar:
        for number in numbers:
            test = np.flatnonzero(fold == number)
            train = np.flatnonzero(training_cells(split, number))
            chosen = isinstance(genes, str)
            columns = choose_genes(x[train], genes, log[train]) if chosen else np.asarray(genes)  # type: ignore[arg-type]
            columns = np.concatenate([columns, np.setdiff1d(_all_of(apart), columns)])
            num_genes = len(columns)
            y, truth = (log[rows][:, columns].toarray() for rows in (train, test))
            for name, z in inputs.items():
                if z is None:
                    guess = np.broadcast_to(y.mean(axis=0), truth.shape)
                else:
                    a, b = z[train], z[test]
                    reduced = num_components is not None and z.shape[1] > num_components
                    if num_components is not None and reduced:
                        a, b = _components(a, b, num_components)
                    if regressor == "xgboost" and name != DEPTH_ORACLE:
                        guess = hest_xgboost(a, y, b)
                    elif strength == "groups":
                        guess = grouped_ridge(a, y, group[train], b, standardize=not reduced)
                    else:
                        guess = hest_ridge(a, y, b, standardize=not reduced)
                scores = prediction_scores(truth, guess, depth[test])
                for part, inside in _parts_of(columns, apart).items():
                    own = prediction_scores(truth[:, inside], guess[:, inside], depth[test])
                    scores |= {f"{score}_{part}": value for score, value in own.items()}
                runs[name].append(scores)
                bar.update()
    sizes = {"num_genes": num_genes, "num_cells": int((fold >= 0).sum()), "num_folds": len(numbers)}
    table = {name: {**mean_and_std(scores), **sizes} for name, scores in runs.items()}
    return pd.DataFrame.from_dict(table, orient="index")


def _columns_of(
    subsets: Mapping[str, ArrayLike] | None, num_genes: int
) -> dict[str, NDArray[np.int64]]:
    """Distinct columns of each subset."""
    found = {}
    for name, columns in (subsets or {}).items():
        values = np.unique(np.asarray(columns))
        if not values.size or values.dtype.kind not in "iu" or values[0] < 0:
            raise ValueError(f"Expected columns of genes in subset {name!r}, got {columns!r}")
        if values[-1] >= num_genes:
            raise ValueError(
                f"Expected columns below {num_genes} in subset {name!r}, got {values[-1]}"
            )
        if name == "other":
            raise ValueError("Expected another name than 'other', that of the genes in no subset")
        found[name] = values.astype(np.int64)
    return found


def _all_of(subsets: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.concatenate([np.empty(0, np.int64), *subsets.values()]))


def _parts_of(
    columns: NDArray[np.integer], subsets: Mapping[str, NDArray[np.int64]]
) -> dict[str, NDArray[np.bool_]]:
    """Which of the columns are of each subset, and which of none; parts without any left out."""
    if not subsets:
        return {}
    parts = {name: np.isin(columns, own) for name, own in subsets.items()}
    parts["other"] = ~np.isin(columns, _all_of(subsets))
    return {name: inside for name, inside in parts.items() if inside.any()}


def grouped_ridge(
    features: NDArray[np.floating],
    y: NDArray[np.floating],
    groups: NDArray[np.integer],
    test_features: NDArray[np.floating],
    *,
    standardize: bool = True,
) -> NDArray[np.floating]:
    """Ridge whose strength has the least error on groups left out of training.

    Args:
        features: Of the training cells, ``[n, F]``.
        y: What to predict, ``[n, G]``.
        groups: Group of each training cell, ``[n]``.
        test_features: ``[m, F]``.
        standardize: Standardise features over each training set; not for principal components,
            whose last say least.

    Returns:
        Predictions for the test cells, ``[m, G]``.
    """
    error = np.zeros(len(_ALPHAS))
    for number in np.unique(groups):
        inside = groups != number
        paths = _ridge_path(features[inside], y[inside], features[~inside], standardize=standardize)
        error += [((guess - y[~inside]) ** 2).sum() for guess in paths]
    best = int(error.argmin())
    alphas = _ALPHAS[best : best + 1]
    return _ridge_path(features, y, test_features, alphas, standardize=standardize)[0]


def hest_ridge(
    features: NDArray[np.floating],
    y: NDArray[np.floating],
    test_features: NDArray[np.floating],
    *,
    standardize: bool = True,
) -> NDArray[np.floating]:
    """Ridge of the strength that HEST-Bench sets, 100 over features times genes, and an intercept.

    Args:
        features: Of the training cells, ``[n, F]``.
        y: What to predict, ``[n, G]``.
        test_features: ``[m, F]``.
        standardize: Standardise features over the training cells.

    Returns:
        Predictions for the test cells, ``[m, G]``.
    """
    alphas = np.array([100.0 / (features.shape[1] * y.shape[1])])
    return _ridge_path(features, y, test_features, alphas, standardize=standardize)[0]


def hest_xgboost(
    features: NDArray[np.floating],
    y: NDArray[np.floating],
    test_features: NDArray[np.floating],
    *,
    seed: int = 0,
) -> NDArray[np.floating]:
    """Boosted trees of HEST-Bench: for each gene 100 of depth 3, rate 0.1, on 0.8 of rows, columns.

    Args:
        features: Of the training cells, ``[n, F]``.
        y: What to predict, ``[n, G]``.
        test_features: ``[m, F]``.
        seed: Of the rows and columns drawn.

    Returns:
        Predictions for the test cells, ``[m, G]``.

    Raises:
        ImportError: xgboost is not installed.
    """
    xgboost: Any = require("xgboost", extra="xgboost", purpose='regressor="xgboost"')
    model = xgboost.XGBRegressor(
        n_estimators=100,
        learning_rate=0.1,
        max_depth=3,
        subsample=0.8,
        colsample_bytree=0.8,
        random_state=seed,
    )
    return model.fit(features, y).predict(test_features).reshape(len(test_features), -1)


def _ridge_path(
    features: NDArray[np.floating],
    y: NDArray[np.floating],
    test_features: NDArray[np.floating],
    alphas: NDArray[np.floating] = _ALPHAS,
    *,
    standardize: bool,
) -> list[NDArray[np.floating]]:
    """Predictions at each strength from one singular value decomposition."""
    scaler, mean = StandardScaler(with_std=standardize).fit(features), y.mean(axis=0)
    u, s, vt = np.linalg.svd(scaler.transform(features), full_matrices=False)
    uy, z = u.T @ (y - mean), scaler.transform(test_features) @ vt.T
    return [(z * (s / (s**2 + alpha))) @ uy + mean for alpha in alphas]


def _components(
    train: NDArray[np.floating], test: NDArray[np.floating], num_components: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Principal components of features standardised over training cells."""
    size = min(num_components, len(train))
    pipe = make_pipeline(StandardScaler(), PCA(size, random_state=0)).fit(train)
    return pipe.transform(train), pipe.transform(test)


def _check_groups(split: Folds, group: NDArray[np.integer], numbers: NDArray[np.int64]) -> None:
    for number in numbers:
        found = len(np.unique(group[training_cells(split, number)]))
        if found < 2:
            raise ValueError(
                f"Expected at least two groups of training cells, got {found} outside of fold "
                f"{number}. Pass 'groups', such as spatial_blocks(pos)"
            )
