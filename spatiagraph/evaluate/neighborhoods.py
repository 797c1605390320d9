"""Neighbourhoods of cells: types among their neighbours, and how far two answers differ."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from spatiagraph.evaluate.inputs import as_types


def neighbor_composition(
    neighbors: ArrayLike, types: ArrayLike | pd.Series, *, weight: ArrayLike | None = None
) -> pd.DataFrame:
    r"""Share of each type among the neighbours of every cell.

    .. math::
        P_i(k) = \frac{\sum_j a_{ij} [t_j = k]}{\sum_j a_{ij}}

    Args:
        neighbors: Rows of a cell and of a neighbour of it in each column, ``[2, E]``; both
            directions of a pair are two columns.
        types: Type of each cell, ``[N]``.
        weight: :math:`a_{ij}` of each column, ``[E]``, such as predicted probabilities; 1 when not
            given.

    Returns:
        One row per cell, one column per type; NaN where a cell has no neighbours.

    Raises:
        ValueError: If rows are none of the cells, or weights are negative or do not fit.

    Examples:
        >>> neighbor_composition([[0, 0], [1, 2]], ["T", "M", "B"]).loc[0].to_dict()
        {'B': 0.5, 'M': 0.5, 'T': 0.0}
    """
    code, names = as_types(types)
    ends = np.asarray(neighbors)
    if ends.ndim != 2 or len(ends) != 2:
        raise ValueError(f"Expected rows of cells and neighbours [2, E], got {list(ends.shape)}")
    if ends.size and not (0 <= ends.min() and ends.max() < len(code)):
        raise ValueError(f"Expected rows of {len(code)} cells, got {ends.min()}…{ends.max()}")
    a = np.ones(ends.shape[1]) if weight is None else np.asarray(weight, dtype=np.float64)
    if a.shape != (ends.shape[1],) or not (a >= 0).all():
        raise ValueError(f"Expected {ends.shape[1]} weights of 0 or more, got {list(a.shape)}")
    cell, other = ends.astype(np.int64)
    size = (len(code), len(names))
    total = np.bincount(cell * size[1] + code[other], a, size[0] * size[1]).reshape(size)
    with np.errstate(invalid="ignore"):
        share = total / total.sum(axis=1, keepdims=True)
    return pd.DataFrame(share, columns=names)


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> NDArray[np.float64]:
    r"""Jensen–Shannon divergence in bits, from 0 (equal) to 1 (nothing in common).

    .. math::
        \tfrac{1}{2} KL(P \| M) + \tfrac{1}{2} KL(Q \| M), \qquad M = (P + Q) / 2

    It is the divergence, not its square root. A distribution with NaN is empty: 1.

    Args:
        p: Distributions along the last axis, ``[..., K]``.
        q: The same number of them, ``[..., K]``.

    Raises:
        ValueError: If shapes differ, or numbers are no shares that sum to 1.

    Examples:
        >>> jensen_shannon([[1, 0], [0.5, 0.5]], [[0, 1], [1, 0]]).round(5)
        array([1.     , 0.31128])
    """
    a, b = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if a.shape != b.shape or a.ndim < 1:
        raise ValueError(f"Expected equal shapes, got {list(a.shape)} and {list(b.shape)}")
    empty = np.isnan(a).any(axis=-1) | np.isnan(b).any(axis=-1)
    for one in (a[~empty], b[~empty]):
        if (one < 0).any() or not np.allclose(one.sum(axis=-1), 1, atol=1e-6):
            raise ValueError("Expected shares of 0 or more that sum to 1")
    middle = (a + b) / 2

    def gap(one: NDArray[np.float64]) -> NDArray[np.float64]:
        ratio = np.divide(one, middle, out=np.ones_like(one), where=one > 0)
        return np.nan_to_num(one * np.log2(ratio)).sum(axis=-1)

    return np.where(empty, 1.0, np.clip((gap(a) + gap(b)) / 2, 0.0, 1.0))


def composition_divergence(
    true: pd.DataFrame, found: pd.DataFrame, types: ArrayLike | pd.Series
) -> pd.DataFrame:
    """Compare found neighbourhoods with true ones, for each type of cell in their middle.

    Args:
        true: Composition of each cell, of :func:`neighbor_composition`.
        found: That which was found, of the same cells and types.
        types: Type of each cell, ``[N]``.

    Returns:
        One row per type of cell: ``cells`` (with true neighbours), ``of_means`` (the divergence of
        the mean compositions of these cells), ``mean`` (the mean of the divergences of each), and
        ``empty`` (cells for which nothing was found, each a divergence of 1).

    Raises:
        ValueError: If both are not of the same cells and types.
    """
    if list(true.columns) != list(found.columns) or len(true) != len(found):
        raise ValueError(
            f"Expected compositions of the same cells and types, got {len(true)} x "
            f"{list(true.columns)} and {len(found)} x {list(found.columns)}"
        )
    code, names = as_types(types)
    if len(code) != len(true):
        raise ValueError(f"Expected types of {len(true)} cells, got {len(code)}")
    t, f = true.to_numpy(), found.to_numpy()
    known, empty = ~np.isnan(t).any(axis=1), np.isnan(f).any(axis=1)
    each = jensen_shannon(t, f)
    rows = []
    for k, name in enumerate(names):
        asked = known & (code == k)
        if not asked.any():
            continue
        answered = asked & ~empty
        means = jensen_shannon(t[asked].mean(0), f[answered].mean(0)) if answered.any() else 1.0
        lost = int((asked & empty).sum())
        rows.append((name, int(asked.sum()), float(means), each[asked].mean(), lost))
    table = pd.DataFrame(rows, columns=["type", "cells", "of_means", "mean", "empty"])
    return table.set_index("type")
