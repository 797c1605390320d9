"""Marker genes of groups of cells: what is more in one group than in the remaining cells."""

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, diags

from spatiagraph.data.slide import Slide

_ROWS = 20_000  # cells that are dense at a time


def marker_genes(slide: Slide, groups: pd.Series, *, num: int = 5) -> pd.DataFrame:
    r"""The genes that most set each group of cells apart, and what all groups have of them.

    Genes are ranked by Welch's t of a group against all other cells, on
    :math:`\log(1 + \tilde n\, x_{cg} / n_c)` with the median total :math:`\tilde n` (as scanpy's
    ``rank_genes_groups`` does after ``normalize_total`` and ``log1p``); values that are normalised
    already are taken as they are. The groups were found in the same genes: a large t describes, it
    is no test.

    Args:
        slide: The slide.
        groups: Group of each cell, ``[N]``; cells without one count for none.
        num: Genes of each group, at most. A gene is listed once, for the group it marks most.

    Returns:
        A row for each gene and group: ``gene``, ``marks`` (the group it is a marker of), ``group``,
        ``mean`` (of the values above), ``share`` (of cells that have it; for normalised values, of
        cells above the mean of all) and ``t``.
    """
    groups = pd.Series(pd.Categorical(groups.to_numpy())) if groups.dtype != "category" else groups
    names = [name for name in groups.cat.categories if (groups == name).any()]
    code = pd.Categorical(groups, categories=names).codes
    inside = np.flatnonzero(code >= 0)
    x = _values(slide)[inside]
    member = csr_matrix(
        (np.ones(len(inside)), (code[inside], np.arange(len(inside)))), (len(names), len(inside))
    )
    size = np.bincount(code[inside], minlength=len(names))[:, None].astype(float)
    first, second = (member @ x).toarray(), (member @ x.multiply(x)).toarray()
    mean, variance = first / size, np.maximum(second / size - (first / size) ** 2, 0.0)
    rest = size.sum() - size
    mean_rest = (first.sum(0) - first) / np.maximum(rest, 1)
    variance_rest = (second.sum(0) - second) / np.maximum(rest, 1) - mean_rest**2
    error = variance / size + np.maximum(variance_rest, 0.0) / np.maximum(rest, 1)
    t = (mean - mean_rest) / np.sqrt(error + 1e-12)
    t[mean <= mean_rest] = 0.0
    share = _share(x, member, size, slide.expression == "counts")
    best = t.argmax(axis=0)
    symbols, rows = np.asarray(slide.symbols), []
    for number, name in enumerate(names):
        order = np.argsort(-t[number], kind="stable")
        chosen = [g for g in order if best[g] == number and t[number, g] > 0][:num]
        for gene in chosen:
            rows += [
                (symbols[gene], name, other, mean[row, gene], share[row, gene], t[row, gene])
                for row, other in enumerate(names)
            ]
    return pd.DataFrame(rows, columns=["gene", "marks", "group", "mean", "share", "t"])


def _values(slide: Slide) -> csr_matrix:
    """Values that are compared, ``[N, G]``."""
    x = slide.counts.astype(np.float64)
    if slide.expression != "counts":
        return x.tocsr()
    depth = np.asarray(slide.depth, dtype=np.float64)
    middle = np.median(depth[depth > 0]) if (depth > 0).any() else 1.0
    scaled = diags(middle / np.maximum(depth, 1e-12)) @ x
    return csr_matrix(scaled).log1p()


def _share(x: csr_matrix, member: csr_matrix, size: np.ndarray, counts: bool) -> np.ndarray:
    """Share of the cells of each group that have a gene, ``[K, G]``."""
    if counts:
        return (member @ (x > 0).astype(np.float64)).toarray() / size
    mean = np.asarray(x.mean(axis=0)).ravel()
    above = np.zeros((member.shape[0], x.shape[1]))
    for start in range(0, x.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        above += member[:, rows] @ (x[rows].toarray() > mean)
    return above / size
