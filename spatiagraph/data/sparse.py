r"""Validation of compressed sparse matrices, whose indices compiled code follows unchecked.

An index outside of the matrix, or a pointer that falls, is a read or write outside of its memory.
So every matrix is looked at in full once, when it enters: two passes over its indices, which for
10\ :sup:`8` entries take about as long as reading them.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csc_matrix, csr_matrix, issparse

from spatiagraph.data.checks import check_real

if TYPE_CHECKING:
    from anndata import AnnData

Compressed: TypeAlias = csr_matrix | csc_matrix

_SLOTS = ("layers", "obsp", "varp", "obsm", "varm")
_MEND = "The file or matrix is damaged: write it again from its source"


def compressed(
    kind: type[Compressed],
    data: NDArray,
    indices: NDArray,
    indptr: NDArray,
    shape: tuple[int, int],
    where: str,
) -> Compressed:
    """A matrix from its three arrays, once they are known to fit each other.

    Args:
        kind: ``csr_matrix`` or ``csc_matrix``.
        data: Values, ``[nnz]``.
        indices: Column (CSC: row) of each value, ``[nnz]``.
        indptr: First value of each row (CSC: column), ``[rows + 1]``, ending with ``nnz``.
        shape: Rows and columns.
        where: File and key, for the message.

    Raises:
        ValueError: As :func:`check_compressed`.

    Examples:
        >>> compressed(csr_matrix, np.array([5]), np.array([9]), np.array([0, 1]), (1, 3), "X")
        Traceback (most recent call last):
        ...
        ValueError: Expected X/indices in [0, 3), got 9 at place 0. The file or matrix is ...
    """
    _check_arrays(data, indices, indptr, shape[:: 1 if kind is csr_matrix else -1], where)
    return kind((data, indices, indptr), shape=shape)


def check_compressed(matrix: Compressed, where: str) -> None:
    """Refuse a CSR or CSC matrix that compiled code could not follow safely.

    Entries out of order or repeated are no damage; see :func:`settle`.

    Args:
        matrix: The matrix, whose flags are not trusted.
        where: File and key, for the message.

    Raises:
        ValueError: Arrays of wrong length or type, ``indptr`` that does not rise from 0 to the
            number of values, or an index outside of the matrix; names the place.
    """
    shape = matrix.shape[:: 1 if matrix.format == "csr" else -1]
    _check_arrays(matrix.data, matrix.indices, matrix.indptr, shape, where)


def check_slots(adata: "AnnData", name: str) -> None:
    """Refuse damaged sparse matrices anywhere in an AnnData; what is backed is looked at when read.

    Args:
        adata: Cells.
        name: Of the file or slide, for the message.

    Raises:
        ValueError: As :func:`check_compressed`.
    """
    for where, matrix in _matrices(adata, name):
        check_compressed(matrix, where)


def settle(adata: "AnnData", name: str) -> None:
    """Check the sparse matrices of a file that was read, and bring them to one form, in place.

    Entries out of order are sorted. Entries that occur more than once are added up, which is what
    the format means by them, with a warning: no program writes them on purpose.

    Args:
        adata: Cells, as read; nobody else may hold its arrays.
        name: Of the file, for the message.

    Raises:
        ValueError: As :func:`check_compressed`.
    """
    for where, matrix in _matrices(adata, name):
        check_compressed(matrix, where)
        entries = matrix.nnz
        matrix.sum_duplicates()  # sorts, too; nothing to do for nearly all files
        if matrix.nnz < entries:
            warnings.warn(
                f"{where} has {entries - matrix.nnz} entries that occur more than once; they were "
                "added up",
                stacklevel=2,
            )


def as_csr(values: ArrayLike | Compressed, where: str) -> csr_matrix:
    """Numbers as CSR float32 with each entry once and in order; the input stays as it is.

    Args:
        values: ``[N, G]``, dense or sparse; its memory is shared where it is such a matrix already.
        where: What it is, for the message.

    Raises:
        ValueError: It is no matrix of real numbers, or damaged.

    Examples:
        >>> as_csr([[1 + 2j]], "X")
        Traceback (most recent call last):
        ...
        ValueError: Expected real numbers in X, got complex128. Take the part that was measured
    """
    matrix: Any = values if issparse(values) else np.asarray(values)
    check_real(matrix.dtype, where)
    if issparse(matrix) and matrix.format in ("csr", "csc"):
        check_compressed(matrix, where)
    return canonical(csr_matrix(matrix, dtype=np.float32))


def canonical(matrix: csr_matrix) -> csr_matrix:
    """The same matrix with each entry once and in order, whatever its flags say; a copy if need be.

    Args:
        matrix: A matrix that passed :func:`check_compressed`.
    """
    parts = (matrix.data, matrix.indices, matrix.indptr)
    fresh = csr_matrix(parts, shape=matrix.shape, copy=False)  # flags are remembered, and may lie
    if fresh.has_canonical_format:
        return fresh
    fresh = fresh.copy()
    fresh.sum_duplicates()
    return fresh


def _matrices(adata: "AnnData", name: str) -> Iterator[tuple[str, Compressed]]:
    """All CSR and CSC matrices in memory, with file and key."""
    places: list[tuple[str, Any]] = [] if adata.isbacked else [("X", adata.X)]
    if adata.raw is not None and not adata.isbacked:
        places += [("raw/X", adata.raw.X)]
        places += [(f"raw/varm/{key}", value) for key, value in adata.raw.varm.items()]
    for slot in _SLOTS:
        places += [(f"{slot}/{key}", value) for key, value in getattr(adata, slot).items()]
    places += _nested("uns", adata.uns)
    for key, value in places:
        if issparse(value) and value.format in ("csr", "csc"):
            yield f"{name}: {key}", value


def _nested(key: str, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _nested(f"{key}/{name}", value)
        else:
            yield f"{key}/{name}", value


def _check_arrays(
    data: NDArray, indices: NDArray, indptr: NDArray, shape: tuple[int, ...], where: str
) -> None:
    """``shape`` is that of CSR: what ``indptr`` counts, and what ``indices`` point to."""
    major, minor = shape
    for key, array in (("data", data), ("indices", indices), ("indptr", indptr)):
        if array.ndim != 1:
            raise ValueError(
                f"Expected {where}/{key} with one axis, got shape {list(array.shape)}. {_MEND}"
            )
        if key != "data" and array.dtype.kind not in "iu":
            raise ValueError(f"Expected integers in {where}/{key}, got {array.dtype}. {_MEND}")
    if len(indptr) != major + 1:
        raise ValueError(
            f"Expected {where}/indptr of length {major + 1} for shape {list(shape)}, got "
            f"{len(indptr)}. {_MEND}"
        )
    if len(data) != len(indices):
        raise ValueError(
            f"Expected {where}/data and {where}/indices of one length, got {len(data)} and "
            f"{len(indices)}. {_MEND}"
        )
    if indptr[0] != 0 or indptr[-1] != len(indices):
        raise ValueError(
            f"Expected {where}/indptr from 0 to {len(indices)}, the number of values, got "
            f"{indptr[0]} to {indptr[-1]}. {_MEND}"
        )
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if len(falls):
        at = int(falls[0])
        raise ValueError(
            f"Expected {where}/indptr never to fall, got {indptr[at]} and then {indptr[at + 1]} at "
            f"place {at + 1}. {_MEND}"
        )
    if len(indices) and (indices.min() < 0 or indices.max() >= minor):
        at = int(np.argmax((indices < 0) | (indices >= minor)))
        raise ValueError(
            f"Expected {where}/indices in [0, {minor}), got {indices[at]} at place {at}. {_MEND}"
        )
