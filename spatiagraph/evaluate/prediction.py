"""Predicted against measured expression: scores per gene, and what is left of them given depth."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

Array = NDArray[np.floating]


def gene_pearson(truth: ArrayLike, prediction: ArrayLike) -> NDArray[np.float64]:
    """Pearson correlation over cells of each gene, predicted and measured.

    Args:
        truth: Measured expression, ``[N, G]``.
        prediction: Predicted expression, ``[N, G]``.

    Returns:
        ``[G]``; 0 for a gene that one of the two says is the same in all cells.

    Raises:
        ValueError: Shapes differ, or a prediction is not finite.

    Examples:
        >>> gene_pearson([[0, 1], [1, 1], [2, 1]], [[1, 5], [2, 6], [3, 7]])
        array([1., 0.])
    """
    t, p = _as_pair(truth, prediction)
    t, p = t - t.mean(axis=0), p - p.mean(axis=0)
    norm = np.sqrt((t**2).sum(axis=0) * (p**2).sum(axis=0))
    return np.divide((t * p).sum(axis=0), norm, out=np.zeros(t.shape[1]), where=norm > 1e-8)


def depth_terms(counts: csr_matrix) -> NDArray[np.float64]:
    """Logarithm of each cell's total count and its square, ``[N, 2]``; log 1 for an empty cell."""
    total = np.asarray(counts.sum(axis=1, dtype=np.float64))
    log = np.log(np.maximum(total, 1e-12), where=total > 0, out=np.zeros_like(total))
    return np.concatenate([log, log**2], axis=1)


def pearson_given(
    truth: ArrayLike, prediction: ArrayLike, covariates: ArrayLike
) -> NDArray[np.float64]:
    r"""Pearson correlation of each gene after both sides have lost what the covariates explain.

    Much of the correlation of log expression with anything is sequencing depth: with the
    :func:`depth_terms` of the scored cells as covariates, a prediction that knows depth alone
    scores 0.

    Args:
        truth: Measured expression, ``[N, G]``.
        prediction: Predicted expression, ``[N, G]``.
        covariates: ``[N, C]``; a constant is added.

    Returns:
        Partial correlation of each gene, ``[G]``; 0 where one side has nothing left.

    Examples:
        >>> depth = np.array([[1.0], [2.0], [4.0], [4.5]])
        >>> pearson_given(3 * depth + [[1], [0], [0], [-1]], 5 * depth, depth).round(3)
        array([0.])
    """
    t, p = _as_pair(truth, prediction)
    c = np.asarray(covariates, dtype=np.float64)
    spread = c.std(axis=0)
    scaled = (c - c.mean(axis=0)) / np.where(spread > 0, spread, 1)
    basis = np.linalg.qr(np.concatenate([np.ones((len(c), 1)), scaled], axis=1))[0]
    left = [side - basis @ (basis.T @ side) for side in (t, p)]
    size = [np.linalg.norm(side, axis=0) for side in (t, p)]
    rest = [np.linalg.norm(side, axis=0) for side in left]
    # what is left of a side that the covariates explain in full is rounding, not signal
    some = np.logical_and(*(r > 1e-6 * s for r, s in zip(rest, size, strict=True)))
    return np.where(some, gene_pearson(*left), 0.0)


def prediction_scores(
    truth: ArrayLike, prediction: ArrayLike, covariates: ArrayLike | None = None
) -> dict[str, float]:
    """Scores of one prediction, averaged over genes.

    Args:
        truth: Measured expression, ``[N, G]``.
        prediction: Predicted expression, ``[N, G]``.
        covariates: What the partial correlation is given, ``[N, C]``, such as
            :func:`depth_terms`.

    Returns:
        ``pearson_mean`` and ``pearson_median`` over genes, ``rmse`` the mean over genes of the
        root of the mean squared error, ``mse``, and with covariates ``pearson_given_depth``.
    """
    t, p = _as_pair(truth, prediction)
    r, error = gene_pearson(t, p), ((t - p) ** 2).mean(axis=0)
    scores = {
        "pearson_mean": float(r.mean()),
        "pearson_median": float(np.median(r)),
        "rmse": float(np.sqrt(error).mean()),
        "mse": float(error.mean()),
    }
    if covariates is not None:
        scores["pearson_given_depth"] = float(pearson_given(t, p, covariates).mean())
    return scores


def mean_and_std(runs: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each score over runs, and beside it ``…_std``, their sample standard deviation.

    Runs that do not have a score, NaN, are left out of it.
    """
    table = {}
    for name in runs[0]:
        values = np.array([run[name] for run in runs])
        values = values[~np.isnan(values)]
        table[name] = float(values.mean()) if len(values) else np.nan
        table[f"{name}_std"] = float(values.std(ddof=1)) if len(values) > 1 else np.nan
    return table


def _as_pair(truth: ArrayLike, prediction: ArrayLike) -> tuple[Array, Array]:
    t, p = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if t.ndim != 2 or t.shape != p.shape:
        raise ValueError(
            f"Expected a prediction of shape {list(t.shape)} (cells, genes), got {list(p.shape)}"
        )
    bad = np.flatnonzero(~np.isfinite(p).all(axis=1))
    if bad.size:
        raise ValueError(
            f"Expected finite predictions, got NaN or infinity in {bad.size} of {len(p)} rows "
            f"(first: {bad[:5].tolist()})"
        )
    return t, p
