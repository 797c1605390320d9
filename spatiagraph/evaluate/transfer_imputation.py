"""Hidden genes of donors that were never seen, one left out: models beside baselines."""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from typing import Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from spatiagraph.data.variability import gene_variability
from spatiagraph.evaluate.cells import Cells
from spatiagraph.evaluate.donor_folds import as_donors, leave_one_out
from spatiagraph.evaluate.genes import standardized_variance
from spatiagraph.evaluate.imputation import (
    BASELINES,
    ON_REQUEST,
    ImputationSplit,
    Method,
    hide_genes,
)
from spatiagraph.evaluate.inputs import UnscorableError, as_embedding, with_baselines
from spatiagraph.evaluate.prediction import prediction_scores

Genes = Callable[[NDArray[np.bool_]], NDArray[np.int64]]
"""Mask of training cells ``[N]`` → columns of genes that take part, chosen on these cells."""

NUM_PARTS = 5
"""Sets that the genes are split into; one of them is hidden."""
MAX_GENES = 1000
"""Genes that take part, at most: the most variable of the training cells."""
MIN_CELLS = 10
"""Training cells that show a gene, at least."""

_ELSEWHERE = ("nbr_mean_train",)  # no training cell lies on the slide of a held-out donor


def donor_splits(
    cells: Cells, donor: ArrayLike, *, genes: Genes | None = None, seed: int = 0
) -> Iterator[tuple[Hashable, ImputationSplit, NDArray[np.float32]]]:
    """Splits that hide a fifth of the genes of one donor after the other, each with the truth.

    Nothing of the held-out donor decides which genes take part, which of them are hidden, and what
    depth cells are brought to. The total of a cell is that of the genes that take part. The hidden
    fifth differs from donor to donor.

    Args:
        cells: Cells of all donors.
        donor: Donor of each cell, ``[N]``, two or more.
        genes: Genes to choose from, such as those a model of the training cells reads; all by
            default. Of these, the 1,000 most variable that ten training cells show take part.
        seed: The same seed hides the same genes.

    Yields:
        The held-out donor, the split, and the hidden genes of its cells, ``[n_test, H]``.

    Raises:
        ValueError: There are fewer than two donors, one is missing, or a slide has two.
        UnscorableError: Fewer genes take part than there are sets.
    """
    who = as_donors(donor, cells.counts.shape[0])
    names = list(pd.unique(who))
    if len(names) < 2:
        raise ValueError(f"Expected at least two donors, got {len(names)}")
    for number, (name, train) in enumerate(leave_one_out(who, cells.slide, names)):
        panel = _taking_part(cells, train, genes)
        if len(panel) < NUM_PARTS:
            raise UnscorableError(
                f"Expected {NUM_PARTS} genes or more seen in {MIN_CELLS} training cells, to hide "
                f"one in {NUM_PARTS}, got {len(panel)} where donor {name!r} is held out"
            )
        part = np.random.default_rng(seed).permutation(np.arange(len(panel)) % NUM_PARTS)
        hidden = part == number % NUM_PARTS
        total = np.asarray(cells.counts[train][:, panel].sum(axis=1, dtype=np.float64))
        split, truth = hide_genes(
            cells,
            panel[hidden],
            visible=panel[~hidden],
            train=np.flatnonzero(train),
            test=np.flatnonzero(~train),
            depth=float(np.median(total[total > 0])) if cells.expression == "counts" else 1.0,
            number=number,
            panel=panel,
        )
        yield name, split, truth


def score_transfer_imputation(
    methods: Mapping[str, Method],
    cells: Cells,
    donor: ArrayLike,
    *,
    genes: Genes | None = None,
    baselines: Collection[str] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> pd.DataFrame:
    """Score the prediction of hidden genes of each donor in turn, learned on remaining donors.

    The splits are those of :func:`donor_splits`; no label is needed. Methods and baselines are
    those of :func:`~spatiagraph.evaluate.score_imputation`, but for the mean of training cells
    nearby: there are none on the slide of a donor that was never seen.

    Args:
        methods: Name → method. May be empty, for the baselines alone.
        cells: Cells of all donors.
        donor: Donor of each cell, ``[N]``, two or more.
        genes: Genes to choose from; all by default.
        baselines: Some of ``train_mean``, ``ridge_depth``, ``ridge``, ``knn_expr``,
            ``ridge_own_nbr`` and ``tangram_like``; all but the last by default.
        seed: The same seed hides the same genes.
        progress: Show a bar.

    Returns:
        One row per method or baseline and held-out donor: ``embedding``, ``donor``,
        ``pearson_mean`` and ``pearson_median`` over hidden genes, ``rmse``, ``mse``, ``num_cells``
        and ``num_genes`` hidden. Means over donors:
        :func:`~spatiagraph.evaluate.summarize_transfer`.

    Raises:
        ValueError: As :func:`donor_splits`; or a method has the name of a baseline or returns
            another shape, or a baseline is not known.
    """
    known = {k: v for k, v in {**BASELINES, **ON_REQUEST}.items() if k not in _ELSEWHERE}
    wanted = [k for k in known if k not in ON_REQUEST] if baselines is None else baselines
    every = with_baselines(methods, known, wanted)
    rows = []
    splits = donor_splits(cells, donor, genes=genes, seed=seed)
    num_donors = len(pd.unique(np.asarray(donor)))
    for name, split, truth in tqdm(splits, "imputation", num_donors, disable=not progress):
        sizes = {"num_cells": truth.shape[0], "num_genes": truth.shape[1]}
        for method, predict in every.items():
            guess = as_embedding(predict(split), method)
            scores = prediction_scores(truth, guess)
            rows.append({"embedding": method, "donor": name, **scores, **sizes})
    return pd.DataFrame(rows)


def _taking_part(cells: Cells, train: NDArray[np.bool_], genes: Genes | None) -> NDArray[np.int64]:
    """Sorted columns of the genes that take part, chosen on training cells."""
    own = cells.counts[train]
    columns = np.arange(own.shape[1]) if genes is None else np.unique(genes(train))
    columns = columns[own[:, columns].getnnz(axis=0) >= MIN_CELLS]
    if len(columns) <= MAX_GENES:
        return columns
    kind = cast(Literal["counts", "normalized"], cells.expression)
    x = own[:, columns]
    score = standardized_variance(x) if kind == "counts" else gene_variability(x, kind)
    return columns[np.sort(np.argsort(-score, kind="stable")[:MAX_GENES])]
