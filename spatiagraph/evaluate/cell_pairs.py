"""Neighbours or not: scores of pairs of cells, beside what needs no model."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.metrics import roc_auc_score

from spatiagraph.evaluate.baselines import log_normalize
from spatiagraph.evaluate.inputs import as_types

CONSTANT = "constant"
"""Row of the table for the answer that all pairs are neighbours."""


def score_cell_pairs(
    neighbors: ArrayLike,
    log_odds: Mapping[str, ArrayLike],
    rankings: Mapping[str, ArrayLike] | None = None,
) -> pd.DataFrame:
    """Score what says of pairs of cells whether they are neighbours.

    Of balanced pairs the answer that all are neighbours has an F1 of 0.667: it is always in the
    table.

    Args:
        neighbors: Whether the cells of each pair are neighbours, ``[P]`` bool.
        log_odds: Name → log-odds of being neighbours of each pair, ``[P]``; above 0 is yes.
        rankings: Name → any number that is larger for likelier neighbours, ``[P]``. As many of the
            largest are called neighbours as there are.

    Returns:
        One row per name and one, ``"constant"``: ``accuracy``, ``recall``, ``specificity``,
        ``precision``, ``F1``, ``AUROC``, and ``ECE`` of those with log-odds, see
        :func:`calibration_error`.

    Raises:
        ValueError: If sizes differ, a number is not finite, two scores share a name, or all pairs
            or none are neighbours.

    Examples:
        >>> table = score_cell_pairs([True, True, False, False], {"model": [2.0, -1, -2, -3]})
        >>> table["F1"].round(3).to_dict()
        {'model': 0.667, 'constant': 0.667}
    """
    label = np.asarray(neighbors, dtype=bool)
    if label.ndim != 1 or label.all() or not label.any():
        raise ValueError(
            f"Expected pairs of neighbours and of others, got {int(label.sum())} of {label.size}"
        )
    names = Counter([*log_odds, *(rankings or {}), CONSTANT])
    if twice := sorted(name for name, number in names.items() if number > 1):
        raise ValueError(f"Expected a name of its own of each score, got twice: {', '.join(twice)}")
    rows = {}
    for name, values in log_odds.items():
        score = _as_scores(name, values, len(label))
        error = calibration_error(label, 0.5 * (1 + np.tanh(score / 2)))
        rows[name] = {**_counted(label, score > 0), "AUROC": roc_auc_score(label, score)}
        rows[name]["ECE"] = error
    for name, values in (rankings or {}).items():
        score = _as_scores(name, values, len(label))
        called = np.zeros(len(label), dtype=bool)
        called[np.argsort(-score, kind="stable")[: label.sum()]] = True
        rows[name] = {**_counted(label, called), "AUROC": roc_auc_score(label, score)}
    rows[CONSTANT] = {**_counted(label, np.ones_like(label)), "AUROC": 0.5}
    return pd.DataFrame(rows).T.rename_axis("score")


def calibration_error(outcome: ArrayLike, probability: ArrayLike, num_bins: int = 10) -> float:
    r"""Expected calibration error: how far probabilities are from what then comes true.

    .. math::
        \sum_b \frac{n_b}{n} \left| \bar y_b - \bar p_b \right|

    over bins of equal width of the probability; of
    `"On Calibration of Modern Neural Networks" <https://arxiv.org/abs/1706.04599>`_, for two
    outcomes.

    Args:
        outcome: What came true, ``[P]`` bool.
        probability: How likely it was said to be, ``[P]`` in [0, 1].
        num_bins: Bins.

    Raises:
        ValueError: If sizes differ or probabilities are none.

    Examples:
        >>> calibration_error([True, False, True, True], [0.95, 0.95, 0.95, 0.95])
        0.2
    """
    y, p = np.asarray(outcome, dtype=float), np.asarray(probability, dtype=float)
    if y.shape != p.shape or y.ndim != 1 or not len(y):
        raise ValueError(f"Expected an outcome of each, got {list(y.shape)} and {list(p.shape)}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("Expected probabilities in [0, 1]")
    place = np.minimum((p * num_bins).astype(int), num_bins - 1)
    gap = np.bincount(place, y - p, num_bins)
    return float(round(np.abs(gap).sum() / len(y), 12))


def expression_cosine(counts: csr_matrix, pairs: ArrayLike) -> NDArray[np.float64]:
    """Cosine of the expression of the cells of each pair, per 10,000 and as logarithms, ``[P]``.

    Args:
        counts: Counts of each cell, ``[N, G]``.
        pairs: Rows of the two cells, ``[P, 2]``.
    """
    first, second = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    x = csr_matrix(log_normalize(counts), dtype=np.float64)
    size = np.sqrt(np.asarray(x.multiply(x).sum(axis=1)).ravel())
    product = np.asarray(x[first].multiply(x[second]).sum(axis=1)).ravel()
    norm = size[first] * size[second]
    return np.divide(product, norm, out=np.zeros(len(product)), where=norm > 0)


@dataclass(frozen=True)
class TypeAdjacency:
    """Neighbours of types of cells on known slides, beside what chance would have.

    The baseline of pairs of cells that knows of types alone.

    Attributes:
        names: Types, ``K``.
        log_ratio: Logarithm of observed over expected neighbours, ``[K, K]``.
    """

    names: tuple[str, ...]
    log_ratio: NDArray[np.float64]

    @classmethod
    def fitted(cls, neighbors: ArrayLike, types: ArrayLike | pd.Series) -> Self:
        """Count neighbours of a slide.

        Args:
            neighbors: Rows of cells and of neighbours of them, ``[2, E]``.
            types: Type of each cell, ``[N]``.

        Raises:
            ValueError: If a cell has no type.
        """
        code, names = as_types(types)
        first, second = code[np.asarray(neighbors, dtype=np.int64)]
        count = np.bincount(first * len(names) + second, minlength=len(names) ** 2) + 1.0
        count = count.reshape(len(names), len(names))
        share = np.bincount(code, minlength=len(names)) / len(code)
        expected = count.sum() * np.outer(share, share)
        return cls(tuple(names), np.log((count + count.T) / 2 / expected))

    def __call__(self, types: ArrayLike | pd.Series, pairs: ArrayLike) -> NDArray[np.float64]:
        """Ratio of the types of each pair, ``[P]``; 0, as by chance, with a type it has not seen.

        Args:
            types: Type of each cell, ``[N]``.
            pairs: Rows of the two cells, ``[P, 2]``.
        """
        place = pd.Index(self.names).get_indexer(pd.Index(np.asarray(types).astype(str)))
        a, b = place[np.asarray(pairs, dtype=np.int64).reshape(-1, 2)].T
        return np.where((a >= 0) & (b >= 0), self.log_ratio[a, b], 0.0)


def _as_scores(name: str, values: ArrayLike, size: int) -> NDArray[np.float64]:
    score = np.asarray(values, dtype=np.float64)
    if score.shape != (size,) or not np.isfinite(score).all():
        raise ValueError(f"Expected {size} finite scores of {name!r}, got {list(score.shape)}")
    return score


def _counted(label: NDArray[np.bool_], called: NDArray[np.bool_]) -> dict[str, float]:
    """Shares of right answers of pairs that are called neighbours."""
    hit, yes, no = (label & called).sum(), label.sum(), (~label).sum()
    right = hit + (~label & ~called).sum()
    return {
        "accuracy": float(right / len(label)),
        "recall": float(hit / yes),
        "specificity": float((~label & ~called).sum() / no),
        "precision": float(hit / called.sum()) if called.any() else 0.0,
        "F1": float(2 * hit / (yes + called.sum())),
    }
