"""Retrieval between images and genes: does a cell's picture find its expression, and back?"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm.auto import tqdm

from spatiagraph.data.splits import Folds
from spatiagraph.evaluate.image_to_genes import grouped_ridge
from spatiagraph.evaluate.inputs import (
    UnscorableError,
    as_embedding,
    as_folds,
    check_named,
    training_cells,
)
from spatiagraph.evaluate.prediction import mean_and_std

RANDOM = "random"
"""Row of the table for candidates in random order."""

Projection: TypeAlias = tuple[ArrayLike | Tensor, ArrayLike | Tensor]
"""Image and gene embedding of each cell in one space, both ``[N, D]``."""

_BLOCK = 1024  # queries at a time
_DIRECTIONS = ("image_to_gene", "gene_to_image")


def score_retrieval(
    pairs: Mapping[str, Projection],
    folds: ArrayLike | Tensor | None = None,
    *,
    k: Sequence[int] = (1, 5, 10),
    progress: bool = False,
) -> pd.DataFrame:
    """Score retrieval of a cell's own expression by its image among all cells, and the reverse.

    Candidates are the cells of the same fold, by cosine similarity; equal ones share the mean of
    their ranks, so an embedding that is the same for all cells scores as chance or below. Within a
    fold, neither depth of section nor batch tells candidates apart; folds that were held out in
    training are the honest ones. Among ``k`` candidates or fewer every one is found: such folds say
    nothing of ``recall@k`` and are left out of it. Features that were not trained to agree can be
    brought into one space by :func:`ridge_map`.

    Args:
        pairs: Name → image embedding and gene embedding, both ``[N, D]``; rows of cells that take
            no part may be NaN, as those of :func:`~spatiagraph.inference.project_modalities` are
            off the image.
        folds: Fold of each cell, ``[N]`` integers, below 0 for a cell that takes no part; one
            fold by default.
        k: For which ``k`` to report the share of queries whose partner is among the first ``k``.
        progress: Show a bar.

    Returns:
        Two rows per name and for ``"random"``, distinguished by ``direction``,
        ``"image_to_gene"`` or ``"gene_to_image"``: ``recall@k``, ``median_rank`` (1 is best) and
        ``median_rank_share``, that rank over the number of candidates, each the mean over folds
        with ``…_std`` beside it; ``num_candidates`` (mean) and ``num_cells``. ``recall@k`` is NaN
        where no fold has more than ``k`` candidates.

    Raises:
        ValueError: Two embeddings of a pair differ in shape, a fold has one cell, or a name is
            ``"random"``.

    Examples:
        >>> z = np.eye(4)
        >>> table = score_retrieval({"same": (z, z)}, k=[1])
        >>> table.loc["same", "recall@1"].tolist(), table.loc["random", "recall@1"].tolist()
        ([1.0, 1.0], [0.25, 0.25])
    """
    check_named(pairs, "pairs", values="(image, genes)")
    if not pairs or RANDOM in pairs:
        raise ValueError(f"Expected pairs by other names than {RANDOM!r}, got {list(pairs)}")
    if not k or min(k) < 1:
        raise ValueError(f"Expected 'k' of at least 1, got {list(k)}")
    num_cells = {sum(np.shape(image)[:1]) for image, _ in pairs.values()}
    if len(num_cells) > 1:
        raise ValueError(f"Expected all pairs of the same cells, got {sorted(num_cells)} rows")
    total = num_cells.pop()
    fold = np.zeros(total, dtype=np.int64) if folds is None else as_folds(folds, total).number
    arrays = {name: _as_pair(name, *pair, fold >= 0) for name, pair in pairs.items()}
    parts = [np.flatnonzero(fold == number) for number in np.unique(fold[fold >= 0])]
    if not parts or min(len(rows) for rows in parts) < 2:
        raise UnscorableError(
            f"Expected folds of two cells at least, got {[len(rows) for rows in parts]}"
        )
    candidates = float(np.mean([len(rows) for rows in parts]))
    sizes = {"num_candidates": candidates, "num_cells": int((fold >= 0).sum())}
    names, table = [], []
    with tqdm(total=2 * len(arrays) * len(parts), desc="retrieval", disable=not progress) as bar:
        for name, (image, gene) in arrays.items():
            for direction, (query, found) in zip(
                _DIRECTIONS, ((image, gene), (gene, image)), strict=True
            ):
                runs = []
                for rows in parts:
                    rank = _ranks(query[rows], found[rows])
                    runs.append(_scores(rank, len(rows), k))
                    bar.update()
                names.append(name)
                table.append({"direction": direction, **mean_and_std(runs), **sizes})
    for direction in _DIRECTIONS:
        runs = [_chance(len(rows), k) for rows in parts]
        names.append(RANDOM)
        table.append({"direction": direction, **mean_and_std(runs), **sizes})
    return pd.DataFrame(table, index=names)


def ridge_map(
    source: ArrayLike | Tensor,
    target: ArrayLike | Tensor,
    folds: ArrayLike | Tensor | Folds,
    *,
    groups: ArrayLike | None = None,
) -> NDArray[np.floating]:
    """One modality's features mapped to the other's, each cell by a ridge that has not seen it.

    What two encoders know of each other without having been trained together: the baseline of
    :func:`score_retrieval`, as in ``{"ridge": (ridge_map(colors, genes, folds), genes)}``. Means
    over training cells are taken off, so subtract those of ``target`` from it as well.

    Args:
        source: Features of each cell, ``[N, F]``.
        target: Features to predict, ``[N, D]``.
        folds: Fold of each cell, ``[N]`` integers of 0 or more, each mapped by the others; or
            :class:`~spatiagraph.data.splits.Folds` with a margin.
        groups: Groups for the choice of strength, as in
            :func:`~spatiagraph.evaluate.score_image_to_genes`; the folds by default.

    Returns:
        ``[N, D]``.

    Raises:
        ValueError: Arrays do not fit, or there are fewer than three folds and no groups.
    """
    a, b = as_embedding(source, "source"), as_embedding(target, "target")
    if len(a) != len(b):
        raise ValueError(
            f"Expected 'source' and 'target' of the same cells, got {len(a)} and {len(b)} rows"
        )
    split = as_folds(folds, len(a))
    fold = split.number
    group = fold if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    out = np.empty_like(b)
    for number in np.unique(fold):
        train, test = training_cells(split, number), fold == number
        if len(np.unique(group[train])) < 2:
            raise UnscorableError(
                f"Expected at least two groups outside of fold {number}. Use three folds or more, "
                "or pass 'groups'"
            )
        mean = b[train].mean(axis=0)
        out[test] = grouped_ridge(a[train], b[train], group[train], a[test]) - mean
    return out


def _as_pair(
    name: str, image: ArrayLike | Tensor, gene: ArrayLike | Tensor, among: NDArray[np.bool_]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Both embeddings, rows of length one."""
    a = as_embedding(image, f"{name}, image", among=among)
    b = as_embedding(gene, f"{name}, gene", among=among)
    if a.shape != b.shape:
        raise ValueError(
            f"Expected image and gene embeddings of one shape for {name!r}, got {list(a.shape)} "
            f"and {list(b.shape)}. ridge_map() brings one into the space of the other"
        )
    lengths = [np.linalg.norm(z, axis=1, keepdims=True) for z in (a, b)]
    left, right = (z / np.where(n > 0, n, 1) for z, n in zip((a, b), lengths, strict=True))
    return left, right


def _ranks(query: NDArray[np.floating], found: NDArray[np.floating]) -> NDArray[np.float64]:
    """Rank of each query's own partner, [n], 1 being the best; ties share the mean."""
    rank = np.empty(len(query))
    for start in range(0, len(query), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(query)))
        similarity = query[rows] @ found.T
        own = similarity[np.arange(len(rows)), rows][:, None]
        # rounding depends on the place in a matrix product: what is that close is equal
        same = np.abs(similarity - own) <= 1e-6
        better = ((similarity > own) & ~same).sum(axis=1)
        rank[rows] = 1 + better + (same.sum(axis=1) - 1) / 2
    return rank


def _scores(rank: NDArray[np.float64], num_cells: int, k: Sequence[int]) -> dict[str, float]:
    middle = float(np.median(rank))
    recall = {f"recall@{n}": _told(float((rank <= n).mean()), n, num_cells) for n in k}
    return {**recall, "median_rank": middle, "median_rank_share": middle / num_cells}


def _told(recall: float, k: int, num_cells: int) -> float:
    """A recall that is not 1 by definition, as among ``k`` candidates or fewer."""
    return recall if num_cells > k else float("nan")


def _chance(num_cells: int, k: Sequence[int]) -> dict[str, float]:
    recall = {f"recall@{n}": _told(n / num_cells, n, num_cells) for n in k}
    middle = (num_cells + 1) / 2
    return {**recall, "median_rank": middle, "median_rank_share": middle / num_cells}
