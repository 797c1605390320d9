"""Sparse counts as tensors."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from spatiagraph.graph.ranges import ranges


def csr_tensor(counts: csr_matrix) -> Tensor:
    """Counts as a sparse CSR tensor, ``[N, G]`` float32."""
    with warnings.catch_warnings():
        # torch calls its CSR layout beta; we only keep rows in it
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(counts.indptr.astype(np.int64)),
            torch.from_numpy(counts.indices.astype(np.int64)),
            torch.from_numpy(counts.data.astype(np.float32)),
            counts.shape,
            check_invariants=True,
        )


def ragged_tensor(ids: NDArray[np.integer], ptr: NDArray[np.int64]) -> Tensor:
    """Rows of unequal length as a sparse CSR tensor, ``[n, L]`` int64, with no padding.

    Values are the items, columns their positions within the row.

    Args:
        ids: Items of all rows, one row after the other, ``[T]``.
        ptr: First item of each row, ``[n + 1]``.
    """
    length = np.diff(ptr)
    sizes = torch.from_numpy(length)
    rank = ranges(torch.zeros_like(sizes), sizes)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            torch.from_numpy(ptr),
            rank,
            torch.from_numpy(ids.astype(np.int64)),
            (len(length), int(length.max(initial=0))),
            check_invariants=False,
        )


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of a dense tensor or a sparse CSR matrix, in the layout it has.

    Args:
        x: ``[N, ...]``.
        rows: ``[n]``.
    """
    if x.layout is torch.strided:
        return x[rows]
    ptr, column, value = x.crow_indices(), x.col_indices(), x.values()
    size = ptr[rows + 1] - ptr[rows]
    new_ptr = torch.cat([ptr.new_zeros(1), size.cumsum(0)])
    entry = ranges(ptr[rows], size)
    shape = (rows.numel(), x.size(1))
    return torch.sparse_csr_tensor(
        new_ptr, column[entry], value[entry], shape, check_invariants=False
    )


def as_scipy(x: Tensor) -> csr_matrix:
    """Sparse CSR tensor, or a dense one, as a SciPy matrix."""
    if x.layout is torch.strided:
        return csr_matrix(x.numpy())
    parts = (x.values().numpy(), x.col_indices().numpy(), x.crow_indices().numpy())
    return csr_matrix(parts, shape=tuple(x.shape))
