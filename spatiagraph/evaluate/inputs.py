"""Embeddings and labels at the door of the protocols."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spatiagraph.graph.hierarchy import label_niches


def as_embedding(z: ArrayLike | Tensor, name: str = "embeddings") -> NDArray[np.floating]:
    """An embedding as a floating array.

    Args:
        z: Embedding of each cell, ``[N, D]``, from NumPy or torch, on any device.
        name: What to call it in an error.

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
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise ValueError(
            f"Expected finite '{name}', got NaN or infinity in {bad.size} of {len(array)} rows "
            f"(first: {bad[:5].tolist()})"
        )
    return array


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
    if not isinstance(embeddings, Mapping):
        raise TypeError(
            f"Expected 'embeddings' as name → array, got {type(embeddings).__name__}. "
            "Pass {'mine': z}"
        )
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
