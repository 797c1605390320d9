"""Variability of genes between cells beyond counting noise."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.sparse import csr_matrix

_EXACT = 1024  # different gene means up to which sums over cells are not interpolated


def gene_variability(
    counts: csr_matrix,
    expression: Literal["counts", "normalized"] = "counts",
    *,
    chunk_size: int = 1 << 22,
) -> NDArray[np.float64]:
    r"""Variance of each gene between cells, on a scale that does not depend on its mean.

    For counts :math:`x_{cg}` with cell totals :math:`n_c` and gene shares :math:`p_g`, the variance
    over cells of the analytic Pearson residuals

    .. math::
        r_{cg} = \frac{x_{cg} - \mu_{cg}}{\sqrt{\mu_{cg} + \mu_{cg}^2 / \theta}}, \qquad
        \mu_{cg} = n_c \, p_g, \qquad \theta = 100,

    clipped to :math:`\pm\sqrt{N}`, of `"Analytic Pearson residuals for normalization of single-cell
    RNA-seq UMI data" <https://doi.org/10.1186/s13059-021-02451-7>`_; near 1 for a gene with
    counting noise only. Time grows with the number of non-zeros: what a zero contributes depends
    on :math:`n_c p_g` alone, and its sum over cells is a smooth function of :math:`p_g` (evaluated
    on a grid and interpolated when there are more than 1,024 different ones).
    For normalised expression, the variance of :math:`\log(1 + x)`.

    Args:
        counts: Counts or normalised expression, ``[N, G]``.
        expression: Which of the two.
        chunk_size: Values held at a time: bounds memory, changes no result.

    Returns:
        Variability of each gene, ``[G]``; 0 for a gene that is never seen.

    Examples:
        >>> x = csr_matrix(np.array([[8.0, 1, 1], [0, 5, 5], [8, 1, 1], [0, 5, 5]]))
        >>> gene_variability(x).round(2)
        array([3.85, 1.29, 1.29])
    """
    if expression == "normalized":
        return _variance_of_log(counts)
    num_cells, num_genes = counts.shape
    depth = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    total = depth.sum()
    if not total:
        return np.zeros(num_genes)
    share = np.asarray(counts.sum(axis=0, dtype=np.float64)).ravel() / total
    clip = np.sqrt(num_cells)
    first, second = _sums_if_all_zero(share, depth, clip, chunk_size)
    for rows in _row_blocks(counts, chunk_size):
        part = counts[rows.start : rows.stop]
        gene, cell = part.indices, np.repeat(depth[rows.start : rows.stop], np.diff(part.indptr))
        mean = cell * share[gene]
        at_zero = _residual(0.0, mean, clip)
        here = _residual(part.data, mean, clip)
        first += np.bincount(gene, here - at_zero, num_genes)
        second += np.bincount(gene, here**2 - at_zero**2, num_genes)
    return np.maximum(second / num_cells - (first / num_cells) ** 2, 0.0)


def _residual(
    x: NDArray[np.floating] | float, mean: NDArray[np.float64], clip: float
) -> NDArray[np.float64]:
    noise = np.sqrt(mean + mean**2 / 100)
    r = np.divide(x - mean, noise, out=np.zeros_like(mean), where=noise > 0)
    return np.clip(r, -clip, clip)


def _sums_if_all_zero(
    share: NDArray[np.float64], depth: NDArray[np.float64], clip: float, chunk_size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums over cells of the residual and its square if every count were 0, ``[G]`` each."""
    different, place = np.unique(share, return_inverse=True)
    seen = different[different > 0]
    interpolate = len(seen) > _EXACT
    grid = np.geomspace(seen[0], seen[-1], _EXACT // 2) if interpolate else seen
    depths, number = np.unique(depth, return_counts=True)
    sums = np.zeros((2, len(grid)))
    step = max(1, chunk_size // len(grid))
    for start in range(0, len(depths), step):
        mean = depths[start : start + step, None] * grid
        r = _residual(0.0, mean, clip)
        sums += np.stack([number[start : start + step] @ r, number[start : start + step] @ r**2])
    if interpolate:
        sums = CubicSpline(np.log(grid), sums, axis=1)(np.log(seen))
    full = np.zeros((2, len(different)))
    full[:, different > 0] = sums
    return full[0, place], full[1, place]


def _row_blocks(counts: csr_matrix, chunk_size: int) -> list[slice]:
    """Runs of rows with about ``chunk_size`` non-zeros each."""
    marks = np.arange(chunk_size, counts.nnz, chunk_size)
    cuts = np.unique(np.searchsorted(counts.indptr, marks))
    edges = [0, *cuts[(cuts > 0) & (cuts < counts.shape[0])].tolist(), counts.shape[0]]
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _variance_of_log(values: csr_matrix) -> NDArray[np.float64]:
    log = np.log1p(values.data.astype(np.float64))
    num_cells, num_genes = values.shape
    first = np.bincount(values.indices, log, num_genes) / num_cells
    second = np.bincount(values.indices, log**2, num_genes) / num_cells
    return np.maximum(second - first**2, 0.0)
