"""Baselines of every embedding: principal components, and their spatial means."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from torch import Tensor

from spatiagraph.data import normalization
from spatiagraph.data.variability import gene_variability
from spatiagraph.evaluate.genes import standardized_variance
from spatiagraph.evaluate.inputs import as_embedding, as_expression
from spatiagraph.graph.build import knn_graph
from spatiagraph.graph.points import as_points

Expression = Literal["counts", "normalized"]

_MIN_CELLS = 3  # a gene seen in fewer cells is not looked at


def log_normalize(
    counts: ArrayLike | csr_matrix,
    target: float | None = None,
    *,
    expression: Expression = "counts",
) -> csr_matrix:
    r"""Logarithm of expression, cells brought to one sequencing depth.

    .. math::
        y_{cg} = \log\left(1 + x_{cg} \, \frac{t}{\sum_h x_{ch}}\right)

    Args:
        counts: Counts or normalised expression, ``[N, G]``.
        target: Depth that cells are brought to, :math:`t`; by default the median of the cells
            that are not empty. 1e4 and 1e6 are other customs.
        expression: ``"normalized"`` values are not brought to a depth again.

    Returns:
        ``[N, G]`` float32; zeros stay zeros, and an empty cell stays empty.

    Raises:
        ValueError: A value is negative or not finite, or ``target`` is not positive.

    Examples:
        >>> log_normalize([[1, 1], [0, 4]], target=2).expm1().toarray().round(2)
        array([[1., 1.],
               [0., 2.]], dtype=float32)
    """
    x = as_expression(counts)
    if target is None:
        total = np.asarray(x.sum(axis=1, dtype=np.float64)).ravel()
        target = float(np.median(total[total > 0])) if total.any() else 1.0
    return normalization.log_normalize(x, target, expression=expression).astype(np.float32)


def pca(
    counts: ArrayLike | csr_matrix,
    num_components: int = 30,
    num_genes: int = 2000,
    seed: int = 0,
    *,
    expression: Expression = "counts",
) -> NDArray[np.float32]:
    """Principal components of the most variable genes, after log-normalisation: the plain baseline.

    Of the genes seen in three cells or more, the ``num_genes`` most variable ones: for counts by
    :func:`~spatiagraph.evaluate.genes.standardized_variance` (scanpy's ``"seurat_v3"``; of 2,000
    genes, two at most differ from scanpy's on slides of 176 to 587 spots), for normalised
    expression by the variance of the logarithm. Genes are centred and not scaled; the components
    are exact, and the matrix is never made dense.

    Args:
        counts: Counts or normalised expression, ``[N, G]``.
        num_components: Components, ``C``; fewer where cells or genes do not suffice for them.
        num_genes: Most genes to use.
        seed: Start vector of the solver; changes results in the last digits only.
        expression: Which of the two ``counts`` holds.

    Returns:
        Coordinates of each cell, ``[N, C]`` with ``C`` at most ``min(N, genes) - 1``.

    Raises:
        ValueError: Fewer than two cells, or than two genes seen in three cells.
    """
    for name, value in {"num_components": num_components, "num_genes": num_genes}.items():
        if value < 1:
            raise ValueError(f"Expected '{name}' of at least 1, got {value}")
    x = as_expression(counts)
    x = x[:, np.flatnonzero(x.getnnz(axis=0) >= _MIN_CELLS)]
    if min(x.shape) < 2:
        raise ValueError(
            f"Expected at least two cells and two genes seen in {_MIN_CELLS} cells or more, "
            f"got {x.shape[0]} cells and {x.shape[1]} such genes"
        )
    log = log_normalize(x, expression=expression)
    if x.shape[1] > num_genes:
        counted = expression == "counts"
        score = standardized_variance(x) if counted else gene_variability(x, expression)
        chosen = np.argsort(-score, kind="stable")[:num_genes]
        log = log[:, np.sort(chosen)]
    size = min(num_components, min(log.shape) - 1)
    return PCA(max(size, 1), svd_solver="arpack", random_state=seed).fit_transform(log)


def neighbor_mean(
    z: ArrayLike | Tensor,
    pos: ArrayLike | Tensor,
    k: int = 15,
    slide: ArrayLike | Tensor | None = None,
) -> NDArray[np.floating]:
    """Mean of each cell and its nearest cells: two lines that most domain methods do not beat.

    Args:
        z: Any feature of each cell, ``[N, C]``.
        pos: Cell centres in µm, ``[N, 2]``.
        k: Neighbours of each cell, not counting itself.
        slide: Section of each cell, ``[N]``; means do not cross sections.

    Returns:
        ``[N, C]``.

    Raises:
        ValueError: ``z`` and ``pos`` differ in length, or a section has no more than ``k`` cells.

    Examples:
        >>> neighbor_mean([[0.0], [2.0], [10.0]], [[0, 0], [1, 0], [5, 0]], k=1)
        array([[1.],
               [1.],
               [6.]])
    """
    values = as_embedding(z, "z")
    edge_index = knn_graph(pos, k, slide=slide, include_self=True)
    num_cells = edge_index.size(1) // (k + 1)
    if len(values) != num_cells:
        raise ValueError(
            f"Expected 'z' with a row for each of {num_cells} positions, got {len(values)} rows"
        )
    # A sparse product: gathering the neighbours' values would take k times the memory.
    weight = np.full(edge_index.size(1), 1 / (k + 1), dtype=values.dtype)
    start = np.arange(num_cells + 1) * (k + 1)  # edges are sorted by target
    return csr_matrix((weight, edge_index[0].numpy(), start), shape=(num_cells,) * 2) @ values


def domain_baselines(
    counts: ArrayLike | csr_matrix,
    pos: ArrayLike | Tensor,
    *,
    slide: ArrayLike | Tensor | None = None,
    expression: Expression = "counts",
    seed: int = 0,
) -> dict[str, NDArray[np.floating]]:
    """Embeddings to put beside yours wherever spatial domains are scored.

    ``xy_only`` and ``depth_nbr15`` are floors: position, and local sequencing depth. Below them,
    a method has learned nothing from the genes.

    Args:
        counts: Counts or normalised expression, ``[N, G]``.
        pos: Cell centres in µm, ``[N, 2]``.
        slide: Section of each cell, ``[N]``.
        expression: Which of the two ``counts`` holds.
        seed: Of :func:`pca`.

    Returns:
        Name → embedding: ``pca30``, ``pca30_nbr15``, ``depth_nbr15``, ``xy_only``.
    """
    x, points = as_expression(counts), as_points(pos)
    z = pca(x, seed=seed, expression=expression)
    depth = np.log1p(np.asarray(x.sum(axis=1, dtype=np.float64)))
    return {
        "pca30": z,
        "pca30_nbr15": neighbor_mean(z, points, slide=slide),
        "depth_nbr15": neighbor_mean(depth, points, slide=slide),
        "xy_only": (points - points.mean(axis=0)) / (points.std() or 1.0),
    }
