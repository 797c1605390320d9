"""Single values that were not measured, filled in from the rest of the table."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.evaluate.baselines import Expression, log_normalize
from spatiagraph.evaluate.inputs import as_embedding, as_expression, with_baselines
from spatiagraph.evaluate.prediction import mean_and_std
from spatiagraph.graph.points import as_points

_K, _NUM_COMPONENTS = 15, 30
_RANK, _ROUNDS = 10, 10
_ALPHAS = np.logspace(-1, 6, 15)


@dataclass(frozen=True, eq=False)
class EntrySplit:
    r"""Expression with a share of every cell's genes hidden, each cell its own.

    Predictions are on the scale of :attr:`log`: cells brought to the depth of the median cell, by
    their visible total, then :math:`\log(1 + x)`.

    Args:
        counts: Counts or normalised expression, hidden values set to 0, ``[N, G]``.
        hidden: Which values are hidden, ``[N, G]``.
        pos: Cell centres in µm, ``[N, 2]``, if they were given.
        slide: Section of each cell, ``[N]``, if there are several.
        seed: Which of the repeats.
        expression: Which of the two ``counts`` holds.
        depth: Depth that cells are brought to; 1 for normalised values, which are not.
    """

    counts: csr_matrix
    hidden: NDArray[np.bool_]
    pos: NDArray[np.float64] | None = None
    slide: NDArray | None = None
    seed: int = 0
    expression: Expression = "counts"
    depth: float = 1.0

    @cached_property
    def log(self) -> NDArray[np.float32]:
        """Visible values on the scale to predict, ``[N, G]``; hidden ones are 0, not measured."""
        return log_normalize(self.counts, _depth(self), expression=self.expression).toarray()

    @cached_property
    def gene_means(self) -> NDArray[np.float64]:
        """Mean of :attr:`log` over the cells in which a gene is visible, ``[G]``."""
        seen = (~self.hidden).sum(axis=0)
        return np.divide(
            self.log.sum(axis=0, dtype=np.float64), seen, out=np.zeros(len(seen)), where=seen > 0
        )

    @cached_property
    def filled(self) -> NDArray[np.float32]:
        """:attr:`log` with the mean of its gene in place of every hidden value, ``[N, G]``."""
        return np.where(self.hidden, self.gene_means.astype(np.float32), self.log)


EntryMethod: TypeAlias = Callable[[EntrySplit], ArrayLike | Tensor]
"""From a table with holes to a full one, ``[N, G]``; values that are not hidden do not matter."""


def score_entry_imputation(
    methods: Mapping[str, EntryMethod],
    counts: ArrayLike | csr_matrix,
    pos: ArrayLike | Tensor | None = None,
    *,
    slide: ArrayLike | Tensor | None = None,
    expression: Expression = "counts",
    share: float = 0.2,
    min_cells: int = 10,
    num_repeats: int = 3,
    baselines: Collection[str] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Score imputation of single hidden values, with most genes of the cell given.

    Of the genes measured in a cell, zeros included, a share is hidden at random, in every cell
    anew. The truth is brought to depth by the visible total of its cell, which a method knows.

    ================= ==========================================================================
    ``gene_mean``     mean of the gene over the cells in which it is visible
    ``knn_smooth``    the same over the 15 cells closest in 30 principal components of the
                      table filled with means
    ``low_rank``      ten principal components; holes are filled from them and the components
                      fitted again, ten times over
    ================= ==========================================================================

    Tables are dense: time and memory grow with cells × genes.

    Args:
        methods: Name → function of an :class:`EntrySplit`. May be empty.
        counts: Counts or normalised expression, ``[N, G]``.
        pos: Cell centres in µm, ``[N, 2]``, for methods that look at the tissue.
        slide: Section of each cell, ``[N]``.
        expression: Which of the two ``counts`` holds.
        share: Share of each cell's genes to hide, 0.2 by custom.
        min_cells: Genes seen in fewer cells are left out of the table.
        num_repeats: How often to hide others, with seeds 0, 1, ...
        baselines: Some of the names above; all by default.
        progress: Show a bar.

    Returns:
        One row per method and baseline: ``pearson_mean`` and ``pearson_median`` over genes, each
        over the cells in which the gene is hidden, ``rmse`` the mean over genes, with ``…_std``
        over repeats beside them; ``num_genes``, ``num_cells``, ``num_repeats``.

    Raises:
        ValueError: ``share`` is not between 0 and 1, names clash, or a method returns another
            shape or values that are not finite.
    """
    every = with_baselines(methods, BASELINES, baselines)
    if num_repeats < 1:
        raise ValueError(f"Expected 'num_repeats' of at least 1, got {num_repeats}")
    x = as_expression(counts)
    x = x[:, np.flatnonzero(x.getnnz(axis=0) >= min_cells)]
    points = None if pos is None else as_points(pos)
    if points is not None and len(points) != x.shape[0]:
        raise ValueError(f"Expected a position for each of {x.shape[0]} cells, got {len(points)}")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in every}
    with tqdm(total=len(every) * num_repeats, desc="entries", disable=not progress) as bar:
        for seed in range(num_repeats):
            split, truth = _hide(x, points, slide, expression, share, seed)
            for name, method in every.items():
                runs[name].append(_scores(truth, method(split), split.hidden))
                bar.update()
    sizes = {"num_genes": x.shape[1], "num_cells": x.shape[0], "num_repeats": num_repeats}
    table = {name: {**mean_and_std(scores), **sizes} for name, scores in runs.items()}
    return pd.DataFrame.from_dict(table, orient="index")


def ridge_entries_on(embed: Callable[[EntrySplit], ArrayLike | Tensor]) -> EntryMethod:
    """A method for single values: ridge from an embedding to each gene.

    This puts any model into the table, as in
    ``ridge_entries_on(lambda split: my_embedding(split.counts, split.pos))``. An embedding has seen
    the visible values of its cell, and a regression on those would learn to read them back. So as
    many values again are hidden from ``embed``, and each gene is fitted on the cells in which only
    that hid it. Columns are standardised; each gene has one strength of 15 between 0.1 and 1e6, by
    leave-one-out error. A gene that fewer than two such cells have is predicted by its mean.

    Args:
        embed: From a split to an embedding of its cells, ``[N, D]``, that has not seen hidden
            values.

    Examples:
        >>> method = ridge_entries_on(lambda split: split.filled[:, :2])
    """

    def method(split: EntrySplit) -> NDArray[np.floating]:
        again = _hidden_again(split)
        z = as_embedding(embed(again), "the embedding").astype(np.float64)
        if len(z) != len(split.hidden):
            raise ValueError(
                f"Expected an embedding with a row for each of {len(split.hidden)} cells, got "
                f"{len(z)} rows"
            )
        spread = z.std(axis=0)
        z = (z - z.mean(axis=0)) / np.where(spread > 0, spread, 1)
        guess = np.tile(split.gene_means, (len(z), 1))
        for gene, known in enumerate((again.hidden & ~split.hidden).T):
            if known.sum() > 1:
                model = RidgeCV(_ALPHAS).fit(z[known], split.log[known, gene])
                guess[:, gene] = model.predict(z)
        return guess

    return method


def _hidden_again(split: EntrySplit) -> EntrySplit:
    """The split with as many values of each cell hidden once more."""
    count = min(int(split.hidden[0].sum()), int((~split.hidden[0]).sum()) - 1)
    rng = np.random.default_rng([split.seed, 1])
    draw = rng.random(split.hidden.shape, dtype=np.float32)
    draw[split.hidden] = 2  # the last to be drawn
    hidden = split.hidden.copy()
    np.put_along_axis(hidden, np.argsort(draw, axis=1)[:, :count], True, axis=1)
    counts = split.counts.copy()
    cell = np.repeat(np.arange(len(hidden)), np.diff(counts.indptr))
    counts.data[hidden[cell, counts.indices]] = 0
    counts.eliminate_zeros()
    return replace(split, counts=counts, hidden=hidden)


def _hide(
    x: csr_matrix,
    pos: NDArray[np.float64] | None,
    slide: ArrayLike | Tensor | None,
    expression: Expression,
    share: float,
    seed: int,
) -> tuple[EntrySplit, NDArray[np.float32]]:
    """A split and its truth, [N, G], on one scale."""
    num_cells, num_genes = x.shape
    count = round(share * num_genes)
    if not 1 <= count < num_genes:
        raise ValueError(
            f"Expected a 'share' that hides some of {num_genes} genes and not all, got {share}"
        )
    draw = np.random.default_rng(seed).random((num_cells, num_genes), dtype=np.float32)
    hidden = np.zeros(x.shape, dtype=bool)
    np.put_along_axis(hidden, np.argpartition(draw, count, axis=1)[:, :count], True, axis=1)
    cell = np.repeat(np.arange(num_cells), np.diff(x.indptr))
    visible = x.copy()
    visible.data[hidden[cell, x.indices]] = 0
    visible.eliminate_zeros()
    total = np.asarray(visible.sum(axis=1, dtype=np.float64)).ravel()
    depth = float(np.median(total[total > 0])) if total.any() else 1.0
    split = EntrySplit(
        visible,
        hidden,
        pos,
        None if slide is None else np.asarray(slide),
        seed,
        expression,
        depth if expression == "counts" else 1.0,
    )
    if expression == "normalized":
        return split, x.log1p().toarray()
    scale = np.divide(depth, total, out=np.zeros_like(total), where=total > 0)
    return split, (sparse.diags(scale) @ x).log1p().astype(np.float32).toarray()


def _depth(split: EntrySplit) -> float | None:
    return split.depth if split.expression == "counts" else None


def _scores(
    truth: NDArray[np.float32], prediction: ArrayLike | Tensor, hidden: NDArray[np.bool_]
) -> dict[str, float]:
    """Scores over the hidden values of each gene, averaged over genes."""
    if isinstance(prediction, Tensor):
        prediction = prediction.detach().cpu().numpy()
    guess = np.asarray(prediction)
    if guess.shape != truth.shape or not np.isfinite(guess[hidden]).all():
        raise ValueError(
            f"Expected finite values for all hidden entries of shape {list(truth.shape)} (cells, "
            f"genes), got shape {list(guess.shape)} or values that are not finite"
        )
    seen = np.maximum(hidden.sum(axis=0), 1)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.where(hidden, values, 0).sum(axis=0) / seen

    t, p = truth.astype(np.float64), guess.astype(np.float64)
    rmse = np.sqrt(mean((t - p) ** 2))
    t, p = t - mean(t), p - mean(p)
    norm = np.sqrt(mean(t**2) * mean(p**2))
    r = np.divide(mean(t * p), norm, out=np.zeros(len(norm)), where=norm > 1e-10)
    return {
        "pearson_mean": float(r.mean()),
        "pearson_median": float(np.median(r)),
        "rmse": float(rmse.mean()),
    }


def _gene_mean(split: EntrySplit) -> NDArray[np.floating]:
    return np.broadcast_to(split.gene_means, split.hidden.shape)


def _knn_smooth(split: EntrySplit) -> NDArray[np.floating]:
    size = min(_NUM_COMPONENTS, *split.hidden.shape)
    z = PCA(size, random_state=split.seed).fit_transform(split.filled)
    index = NearestNeighbors(n_neighbors=min(_K, len(z) - 1)).fit(z)
    near = index.kneighbors_graph()  # without the cell itself, [N, N]
    seen = near @ (~split.hidden).astype(np.float32)
    total = near @ split.log
    return np.where(seen > 0, total / np.maximum(seen, 1), split.gene_means)


def _low_rank(split: EntrySplit) -> NDArray[np.floating]:
    filled = split.filled
    guess = filled
    for _ in range(_ROUNDS):
        model = PCA(min(_RANK, *filled.shape), svd_solver="randomized", random_state=split.seed)
        guess = model.inverse_transform(model.fit_transform(filled))
        filled = np.where(split.hidden, guess, split.log)
    return guess


BASELINES: dict[str, EntryMethod] = {
    "gene_mean": _gene_mean,
    "knn_smooth": _knn_smooth,
    "low_rank": _low_rank,
}
