"""Validation of the embeddings, expression and labels of protocols."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse import csr_matrix
from torch import Tensor

from spatiagraph.data.sparse import as_csr
from spatiagraph.data.splits import Folds
from spatiagraph.graph.hierarchy import label_niches

Method = TypeVar("Method")


class UnscorableError(ValueError):
    """Labels or cells of a slide that do not allow a score, whatever the embedding."""


def as_embedding(
    z: ArrayLike | Tensor,
    name: str = "embeddings",
    *,
    among: NDArray[np.bool_] | None = None,
) -> NDArray[np.floating]:
    """An embedding as a floating array.

    Args:
        z: Embedding of each cell, ``[N, D]``, from NumPy or torch, on any device.
        name: What to call it in an error.
        among: Rows that take part, ``[N]``; others may hold anything. All by default.

    Returns:
        ``[N, D]``; float32 stays float32, everything else becomes float64.

    Raises:
        ValueError: Not ``[N, D]``, no column, or some values are not finite (rows are named).

    Examples:
        >>> as_embedding([[0, 1], [2, 3]])
        array([[0., 1.],
               [2., 3.]])
    """
    if isinstance(z, Tensor):
        z = z.detach().cpu()
        z = z if z.dtype == torch.float32 else z.double()
    array = np.asarray(z)
    if array.dtype != np.float32:
        array = array.astype(np.float64)
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(f"Expected '{name}' of shape [N, D], got {list(array.shape)}")
    finite = np.isfinite(array).all(axis=1)
    bad = np.flatnonzero(~finite if among is None or len(among) != len(array) else ~finite & among)
    if bad.size:
        raise ValueError(
            f"Expected finite '{name}', got NaN or infinity in {bad.size} of {len(array)} rows "
            f"(first: {bad[:5].tolist()})"
        )
    return array


def check_named(given: object, argument: str, *, values: str = "array") -> None:
    """Refuse an array, or something else without names, in place of a mapping.

    Args:
        given: The argument.
        argument: What it is called.
        values: What its values are.

    Raises:
        TypeError: It is no mapping.
    """
    if not isinstance(given, Mapping):
        example = "z" if values == "array" else "…"
        raise TypeError(
            f"Expected {argument!r} as name → {values}, got {type(given).__name__}. "
            f"Pass {{'mine': {example}}}"
        )


def as_embeddings(
    embeddings: Mapping[str, ArrayLike | Tensor], num_cells: int
) -> dict[str, NDArray[np.floating]]:
    """Embeddings by name, each with one row per cell.

    Args:
        embeddings: Name → embedding ``[N, D]``; sizes ``D`` may differ.
        num_cells: Number of cells, ``N``.

    Raises:
        TypeError: Not a mapping.
        ValueError: There is none, or some array is no embedding of these cells.
    """
    check_named(embeddings, "embeddings")
    if not embeddings:
        raise ValueError("Expected at least one embedding, got none")
    arrays = {name: as_embedding(z, name) for name, z in embeddings.items()}
    for name, z in arrays.items():
        if len(z) != num_cells:
            raise ValueError(
                f"Expected '{name}' with a row for each of {num_cells} labels, got {len(z)} rows"
            )
    return arrays


def as_codes(
    labels: ArrayLike | pd.Series | Tensor, ignore: Collection[object] = ()
) -> NDArray[np.int64]:
    """Labels as numbers.

    Args:
        labels: One label per cell, ``[N]``: strings, categories or integers. Missing values and
            integers below 0 mean that the cell is not labelled.
        ignore: Labels that mean the same, such as ``("undetermined",)``.

    Returns:
        ``[N]`` integers in ``[0, K)``, -1 for a cell without label.

    Raises:
        TypeError: ``ignore`` is a single string.
        ValueError: ``labels`` is not one-dimensional.

    Examples:
        >>> as_codes(["tumour", "undetermined", None, "stroma"], ignore=["undetermined"])
        array([ 1, -1, -1,  0])
    """
    if isinstance(ignore, str):
        raise TypeError(f"Expected 'ignore' to be a list of labels, got {ignore!r}")
    values = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
    if np.ndim(values) != 1:
        raise ValueError(f"Expected one label per cell, [N], got shape {list(np.shape(values))}")
    series = pd.Series(values)
    return label_niches(series.where(~series.isin(list(ignore)))).numpy()


def as_types(labels: ArrayLike | pd.Series | Tensor) -> tuple[NDArray[np.int64], list[str]]:
    """Types of cells as numbers, and their names.

    Args:
        labels: The type of each cell, ``[N]``; every cell has one.

    Returns:
        ``[N]`` integers in ``[0, K)``, and the ``K`` names in order.

    Raises:
        ValueError: ``labels`` is not one-dimensional, or a cell has none.

    Examples:
        >>> as_types(["T", "B", "T"])
        (array([1, 0, 1]), ['B', 'T'])
    """
    values = labels.cpu().numpy() if isinstance(labels, Tensor) else labels
    if np.ndim(values) != 1:
        raise ValueError(f"Expected one type per cell, [N], got shape {list(np.shape(values))}")
    series = pd.Series(np.asarray(values, dtype=object))
    if none := int(series.isna().sum()):
        raise ValueError(f"Expected a type of every cell, got none of {none}: leave them out")
    code, names = pd.factorize(series.astype(str), sort=True)
    return code.astype(np.int64), [str(name) for name in names]


def as_expression(counts: ArrayLike | csr_matrix) -> csr_matrix:
    """Expression as CSR without stored zeros; the argument stays as it is.

    Args:
        counts: Counts or normalised expression, ``[N, G]``.

    Returns:
        ``[N, G]`` float32.

    Raises:
        ValueError: A value is negative or not finite.

    Examples:
        >>> as_expression([[0, 2], [1, 0]]).nnz
        2
    """
    x = counts if sparse.issparse(counts) else np.atleast_2d(np.asarray(counts))
    csr = as_csr(x, "the counts")
    if not np.isfinite(csr.data).all() or (csr.data < 0).any():
        raise ValueError(
            "Expected finite expression values of at least 0, got NaN, infinity or negative ones. "
            "Pass raw counts, not scaled values"
        )
    if not csr.data.all():
        csr = csr.copy()
        csr.eliminate_zeros()
    return csr


def as_folds(folds: ArrayLike | Tensor | Folds, num_cells: int) -> Folds:
    """The fold of each cell, and the margin around each fold.

    Args:
        folds: ``[N]`` integers, which have no margin, or folds.
        num_cells: Number of cells, ``N``.

    Raises:
        ValueError: Another shape, or not integers.
    """
    given = folds.number if isinstance(folds, Folds) else folds
    fold = np.asarray(given.cpu() if isinstance(given, Tensor) else given)
    if fold.shape != (num_cells,):
        raise ValueError(
            f"Expected 'folds' with one entry for each of {num_cells} cells, got shape "
            f"{list(fold.shape)}"
        )
    if not np.issubdtype(fold.dtype, np.integer):
        raise ValueError(f"Expected 'folds' of integers, got {fold.dtype}")
    number = fold.astype(np.int64)
    return replace(folds, number=number) if isinstance(folds, Folds) else Folds(number)


def training_cells(folds: Folds, number: int) -> NDArray[np.bool_]:
    """Cells to learn from where a fold is held out, ``[N]``.

    Args:
        folds: Of all cells.
        number: The fold that is held out.

    Raises:
        UnscorableError: The margin leaves none.
    """
    train = folds.training(number)
    if folds.margin_um and not train.any():
        raise UnscorableError(
            f"Expected training cells more than {folds.margin_um:.4g} µm from fold {number}, got "
            f"none of {len(train)}: the slide is too small for that margin. A smaller margin_um "
            "scores what neighbours have in common, too"
        )
    return train


def with_baselines(
    methods: Mapping[str, Method],
    baselines: Mapping[str, Method],
    names: Collection[str] | None = None,
) -> dict[str, Method]:
    """Methods, and beside them the baselines of their names.

    Args:
        methods: Name → method.
        baselines: Name → method, all there are.
        names: Some of the baselines; all by default.

    Raises:
        TypeError: Methods have no names.
        ValueError: A baseline is not known, a method has the name of one, or there is nothing.
    """
    check_named(methods, "methods", values="method")
    wanted = list(baselines) if names is None else list(names)
    if unknown := sorted({*wanted} - {*baselines}):
        raise ValueError(
            f"Expected baselines among {', '.join(baselines)}, got {', '.join(unknown)}"
        )
    if taken := sorted({*methods} & {*wanted}):
        raise ValueError(f"Expected other names than those of baselines, got {', '.join(taken)}")
    if not (methods or wanted):
        raise ValueError("Expected at least one method or baseline, got none")
    return {**methods, **{name: baselines[name] for name in wanted}}
