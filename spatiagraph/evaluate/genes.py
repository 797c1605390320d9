"""Variable genes by the usual recipe, so that baselines equal published ones."""

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.sparse import csr_matrix

PANEL = 500
"""Genes of a panel, at most; what measures more is a whole transcriptome."""

_SPAN = 0.3  # share of the genes that each local fit sees
_NUM_KNOTS = 33  # where the trend is fitted; it is interpolated between them


def standardized_variance(counts: csr_matrix) -> NDArray[np.float64]:
    r"""Variance of each gene after division by what genes of the same mean vary.

    The ranking that Seurat and scanpy call ``"seurat_v3"`` or ``"vst"``, of `"Comprehensive
    Integration of Single-Cell Data" <https://doi.org/10.1016/j.cell.2019.05.031>`_. A loess curve
    (quadratic, span 0.3) of the logarithm of the variance over that of the mean gives the expected
    deviation :math:`\sigma_g` of a gene; the score is the variance about the gene's mean

    .. math::
        \frac{1}{N - 1} \sum_c \left( \frac{\min(x_{cg}, \, \mu_g + \sigma_g \sqrt{N}) - \mu_g}
        {\sigma_g} \right)^2 .

    Sequencing depth is not removed, unlike in
    :func:`~spatiagraph.data.variability.gene_variability`.

    Args:
        counts: Raw counts, ``[N, G]``, with two cells or more.

    Returns:
        ``[G]``; 0 for a gene that does not vary.

    Examples:
        >>> x = csr_matrix(np.array([[4.0, 3, 0], [4, 3, 9], [4, 5, 0], [4, 5, 9]]))
        >>> standardized_variance(x).argsort().tolist()
        [0, 1, 2]
    """
    num_cells, num_genes = counts.shape
    x, gene = counts.data.astype(np.float64), counts.indices
    mean = np.bincount(gene, x, num_genes) / num_cells
    square = np.bincount(gene, x**2, num_genes)
    variance = (square - num_cells * mean**2) / (num_cells - 1)
    varies = variance > 1e-12 * np.maximum(mean**2, 1e-300)
    score = np.zeros(num_genes)
    if not varies.any():
        return score
    deviation = np.ones(num_genes)
    trend = loess(np.log10(mean[varies]), np.log10(variance[varies]))
    deviation[varies] = np.sqrt(10.0**trend)
    clipped = np.minimum(x, (mean + deviation * np.sqrt(num_cells))[gene])
    first, second = (np.bincount(gene, clipped**p, num_genes) for p in (1, 2))
    spread = second - 2 * mean * first + num_cells * mean**2
    score[varies] = (spread / deviation**2)[varies] / (num_cells - 1)
    return score


def loess(
    x: NDArray[np.float64], y: NDArray[np.float64], span: float = _SPAN
) -> NDArray[np.float64]:
    r"""Local quadratic regression with tricube weights, at the points themselves.

    `"Locally Weighted Regression" <https://doi.org/10.1080/01621459.1988.10478639>`_. As in the
    original program, value and slope are fitted at knots (quantiles of ``x``) and connected by
    cubic polynomials.

    Args:
        x: Where, ``[n]``.
        y: What, ``[n]``.
        span: Share of the points that each local fit sees.

    Returns:
        The smooth curve at ``x``, ``[n]``.

    Examples:
        >>> x = np.arange(10.0)
        >>> bool(np.allclose(loess(x, x**2 - x, span=0.6), x**2 - x))
        True
    """
    knots = np.unique(np.quantile(x, np.linspace(0, 1, _NUM_KNOTS)))
    fits = np.array([_fit(x - knot, y, span) for knot in knots])  # [K, 2]
    if len(knots) == 1:
        return np.full(len(x), fits[0, 0])
    return CubicHermiteSpline(knots, fits[:, 0], fits[:, 1])(x)


def _fit(x: NDArray[np.float64], y: NDArray[np.float64], span: float) -> tuple[float, float]:
    """Value and slope at zero of the weighted parabola through the nearest points."""
    distance = np.abs(x)
    place = max(int(span * len(x)), 1) - 1
    reach = np.partition(distance, place)[place]
    if len(np.unique(x[distance < reach])) < 3:  # no parabola through two points: look at all
        reach = 2 * distance.max() or 1.0
    near = distance < reach
    scaled = x[near] / reach
    root = np.sqrt((1 - np.abs(scaled) ** 3) ** 3)
    design = np.stack([np.ones_like(scaled), scaled, scaled**2], axis=1)
    solution = np.linalg.lstsq(design * root[:, None], y[near] * root, rcond=None)[0]
    return float(solution[0]), float(solution[1] / reach)
