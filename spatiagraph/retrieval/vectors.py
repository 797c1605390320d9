"""Embeddings on their way into an index: checked and prepared a block at a time.

Blocks keep the peak low: besides the index itself, 10^6 x 256 embeddings need 64 MB, not 1 GB.
"""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Metric = Literal["cosine", "l2"]
_BLOCK = 65_536  # rows


def check_vectors(
    vectors: Any, metric: Metric, name: str, channels: int | None = None
) -> tuple[int, int]:
    """Refuse embeddings that cannot be searched.

    Args:
        vectors: Anything with a shape ``[N, D]`` and row slices: numpy, a tensor, h5py, Zarr.
        metric: ``"cosine"`` also refuses rows of zeros, which have no direction.
        name: Name of the argument, for the message.
        channels: The :math:`D` that is needed.

    Returns:
        :math:`N` and :math:`D`.

    Raises:
        ValueError: If the shape is wrong, or rows are NaN, infinite or all zero in float32; names
            the rows.
    """
    if len(vectors.shape) != 2 or vectors.shape[1] == 0:
        raise ValueError(f"Expected {name!r} of shape [N, D], got {tuple(vectors.shape)}")
    num, found = int(vectors.shape[0]), int(vectors.shape[1])
    if channels is not None and found != channels:
        raise ValueError(
            f"Expected {name!r} with {channels} channels as in the index, got {found}: embed with "
            "the model the index was built from"
        )
    broken: list[NDArray] = []
    zero: list[NDArray] = []
    for start in range(0, num, _BLOCK):
        with np.errstate(over="ignore"):  # too large for float32 is infinity
            block = np.asarray(vectors[start : start + _BLOCK]).astype(np.float32, copy=False)
        broken.append(start + np.flatnonzero(~np.isfinite(block).all(1)))
        if metric == "cosine":
            zero.append(start + np.flatnonzero(~block.any(1)))
    _refuse(broken, f"Expected finite {name!r}, got NaN or infinity in")
    _refuse(zero, f"Expected {name!r} with a direction for the cosine metric, got only zeros in")
    return num, found


def blocks(
    vectors: Any, metric: Metric, rows: range | None = None
) -> Iterator[NDArray[np.float32]]:
    """Contiguous float32 blocks ``[n, D]``; rows of length one for the cosine metric."""
    rows = range(vectors.shape[0]) if rows is None else rows
    for start in range(rows.start, rows.stop, _BLOCK):
        yield prepare(vectors[start : min(start + _BLOCK, rows.stop)], metric)


def prepare(block: Any, metric: Metric) -> NDArray[np.float32]:
    """Contiguous float32; rows of length one for the cosine metric."""
    if metric == "l2":
        return np.ascontiguousarray(block, dtype=np.float32)
    unit = np.asarray(block).astype(np.float32, order="C")  # always a copy
    unit /= np.abs(unit).max(1, keepdims=True)  # a tiny row would underflow when squared
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return unit


def _refuse(found: list[NDArray], message: str) -> None:
    rows = np.concatenate([np.empty(0, np.int64), *found])
    if len(rows):
        named = ", ".join(str(r) for r in rows[:5]) + (", …" if len(rows) > 5 else "")
        raise ValueError(f"{message} {len(rows)} row{'s' if len(rows) > 1 else ''}: {named}")
