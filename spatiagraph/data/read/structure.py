"""Structure of an AnnData file, checked before its values: groups, encodings, shapes and types.

The rules are those of AnnData's format, for HDF5 and Zarr, in one table per kind of element. So
whatever is missing, of another kind or of another length is named with its key, and never comes up
as an accident of the code that reads it. A file may also point to others on the machine: links
and datasets that lie elsewhere are refused.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from anndata import AnnData, read_zarr
from anndata._io.specs.registry import IORegistryError

from spatiagraph._files import check_store
from spatiagraph._reasons import reason
from spatiagraph._walk import check_hdf5
from spatiagraph.data.sparse import settle

DAMAGED = (
    *(OSError, KeyError, RuntimeError, TypeError, ValueError, IORegistryError),
    MemoryError,  # of a length that is damage
)
"""Errors of h5py and zarr on an object that cannot be opened or decoded, and of AnnData on one of a
version that it does not know."""

_MEND = "The file is damaged or not of AnnData: write it again from its source"
_SLOTS = ("X", "obs", "var", "obsm", "varm", "obsp", "varp", "layers", "uns", "raw")
MOST_OBJECTS = 20_000
"""Objects in a file; more is no slide, and takes minutes."""
_DEEPEST = 32  # levels of groups
_GIT_LFS = b"git-lfs.github.com/spec"
_UNPACKED, _RATIO = 2**26, 2_000  # bytes; no filter packs numbers tighter than a thousandfold
_AT_ONCE = 2**24  # codes looked at

Length = tuple[int | None, ...]
"""Wanted length of the first axes; ``None`` for any."""


def check_structure(root: Any, file: str) -> None:
    """Refuse an AnnData file whose parts are not what the format says.

    Args:
        root: Open ``h5py.File`` or group, or ``zarr.Group``.
        file: Its name, for the message.

    Raises:
        ValueError: Names the key, what was expected there, what is there, and what to do.
    """
    _anndata(Node(root, file, _MEND))


def _anndata(node: "Node") -> None:
    top = node.as_group("", "anndata")
    for name in top.names():
        if name not in _SLOTS and not name.startswith("raw."):
            raise top.wrong(f"only {', '.join(_SLOTS)}", f"also {name!r}")
    num_cells, num_genes = (_table(top.child(axis), None) for axis in ("obs", "var"))
    both = (num_cells, num_genes)
    if top.holds("X"):
        _matrix(top.child("X"), both)
    for slot, length in (
        ("layers", both),
        ("obsm", (num_cells,)),
        ("varm", (num_genes,)),
        ("obsp", (num_cells, num_cells)),
        ("varp", (num_genes, num_genes)),
    ):
        _arrays(top, slot, length)
    if top.has("uns"):
        _mapping(top.child("uns"))
    if top.holds("raw"):
        raw = top.child("raw").as_group("", "raw", "dict")
        raw_genes = _table(raw.child("var"), None)
        _matrix(raw.child("X"), (num_cells, raw_genes))
        _arrays(raw, "varm", (raw_genes,))


def open_structure(path: Path, name: str) -> None:
    """:func:`check_structure` of an AnnData that lies in a Zarr store.

    Args:
        path: Its folder.
        name: What to call it, for the message.

    Raises:
        ValueError: It is no Zarr group, or as :func:`check_structure`.
    """
    import zarr

    try:
        group = zarr.open_group(path, mode="r")
    except DAMAGED as err:
        raise ValueError(
            f"Expected a Zarr group in {name}, got {reason(err)}. The store is damaged or "
            "incomplete: copy it again"
        ) from err
    check_structure(group, name)


def read_anndata(path: Path) -> AnnData:
    """Read an AnnData that lies in a Zarr store, once its structure is known to be right.

    Args:
        path: Its folder.

    Raises:
        ValueError: As :func:`open_structure`, or a value cannot be decoded.
    """
    check_store(path)
    open_structure(path, path.name)
    try:
        adata = read_zarr(path)
    except DAMAGED as err:
        raise ValueError(
            f"Expected a readable AnnData in {path.name}, got {reason(err)}. The store is damaged "
            "or incomplete: copy it again"
        ) from err
    settle(adata, path.name)
    return adata


@contextmanager
def open_hdf5(path: Path, mend: str) -> Iterator["Node"]:
    """Open an HDF5 file, whose groups and datasets are looked at on the way to them.

    What another process cannot walk through is not opened in this one.

    Args:
        path: The file.
        mend: What to do if something is not as expected, for messages.

    Raises:
        ValueError: It is none, or damaged.
    """
    if not h5py.is_hdf5(path):
        with path.open("rb") as begin:
            if _GIT_LFS in begin.read(64):
                raise ValueError(
                    f"Expected an HDF5 file, got {path.name}, which is a pointer of Git LFS: fetch "
                    "the file itself with git lfs pull"
                )
        raise ValueError(
            f"Expected an HDF5 file, got {path.name}, which is not HDF5 or is damaged. {mend}"
        )
    check_hdf5(path)
    try:
        with h5py.File(path) as file:
            yield Node(file, path.name, mend)
    except (OSError, KeyError, RuntimeError) as err:  # h5py looks at a part when it is asked of it
        raise ValueError(
            f"Expected a readable HDF5 file, got {path.name}: {reason(err)}. {mend}"
        ) from err


class Node:
    """A group or dataset with its key, and the groups it lies in.

    Args:
        item: Of h5py or zarr.
        file: Name of the file, for messages.
        mend: What to do if it is not as expected, for messages.
        key: Where it lies in the file.
        above: Addresses of the groups it lies in.
        seen: How many there are so far, shared by all of a file.
    """

    def __init__(
        self,
        item: Any,
        file: str,
        mend: str,
        key: str = "",
        above: frozenset[int] = frozenset(),
        seen: list[int] | None = None,
    ):
        self.item, self.file, self.mend, self.key = item, file, mend, key
        self._above, self._seen = above, [0] if seen is None else seen
        self._seen[0] += 1
        if isinstance(item, h5py.Group):
            self._above = above | {h5py.h5o.get_info(item.id).addr}
        if len(self._above) > _DEEPEST or self._seen[0] > MOST_OBJECTS or key.count("/") > _DEEPEST:
            raise self.wrong(f"at most {_DEEPEST} levels and {MOST_OBJECTS:,} objects", "more")

    def wrong(self, expected: str, got: str) -> ValueError:
        where = f"{self.file}: {self.key}" if self.key else self.file
        return ValueError(f"Expected {expected} in {where}, got {got}. {self.mend}")

    @property
    def is_group(self) -> bool:
        return not hasattr(self.item, "shape")

    def names(self) -> list[str]:
        try:
            names = list(self.item.keys())
        except DAMAGED as err:
            raise self.wrong("a readable group", reason(err)) from err
        for name in names:
            if not isinstance(name, str):
                raise self.wrong("names in UTF-8", repr(name))
        return names

    def has(self, name: str) -> bool:
        try:
            return name in self.item
        except DAMAGED as err:
            raise self.wrong("a readable group", reason(err)) from err

    def holds(self, name: str) -> bool:
        """Check that there is something, and be it of the wrong kind; ``None`` is written, too."""
        return self.has(name) and self.child(name).encoding != "null"

    def child(self, name: str) -> "Node":
        key = f"{self.key}/{name}".lstrip("/")
        if not self.has(name):
            raise self.wrong(repr(name), f"{', '.join(map(repr, self.names()[:8])) or 'nothing'}")
        try:
            outside = isinstance(self.item, h5py.Group) and isinstance(
                self.item.get(name, getlink=True), h5py.ExternalLink
            )
            item = None if outside else self.item[name]
            if isinstance(item, h5py.Dataset):
                outside = item.is_virtual or bool(item.external)
                item.dtype, item.shape  # noqa: B018  # types that NumPy does not know
                stored = item.id.get_storage_size()
            loop = isinstance(item, h5py.Group) and (h5py.h5o.get_info(item.id).addr in self._above)
        except DAMAGED as err:
            raise ValueError(
                f"Expected {self.file}: {key} to be readable, got {reason(err)}. The file is "
                "damaged or incomplete: copy it again"
            ) from err
        if isinstance(item, h5py.Datatype):
            raise ValueError(
                f"Expected a group or dataset as {self.file}: {key}, got the definition of a type. "
                "Delete it"
            )
        if outside or loop:
            raise ValueError(
                f"Expected the values of {self.file}: {key} in the file itself, got "
                + ("a link to another file" if outside else "a group that holds itself")
                + ". Write the file again with its values inside"
            )
        node = Node(item, self.file, self.mend, key, self._above, self._seen)
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            if item.nbytes > max(_UNPACKED, _RATIO * stored):
                raise node.wrong(
                    f"the {item.nbytes:,} bytes it claims to hold", f"{stored:,} stored"
                )
        return node

    def children(self) -> Iterator["Node"]:
        for name in self.names():
            yield self.child(name)

    def attribute(self, name: str) -> Any:
        """An attribute, ``None`` if there is none."""
        try:
            value = self.item.attrs.get(name)
        except DAMAGED as err:
            raise self.wrong(f"a readable attribute {name!r}", reason(err)) from err
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    @property
    def encoding(self) -> str:
        value = self.attribute("encoding-type")
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self.wrong("an encoding-type that is text", repr(value))
        return value

    def as_group(self, *encodings: str) -> "Node":
        """Refuse a dataset, and a group that holds one element instead of several by name."""
        if not self.is_group:
            raise self.wrong("a group", "a dataset")
        if encodings and self.encoding not in encodings:
            known = ", ".join(filter(None, encodings))
            raise self.wrong(f"a group of encoding-type {known}", repr(self.encoding))
        return self

    def as_dataset(self, kinds: str = "", what: str = "values") -> "Node":
        """Refuse a group, nothing at all, and, with ``kinds``, other types of numbers."""
        if self.is_group:
            raise self.wrong(f"a dataset of {what}", "a group")
        if self.item.shape is None:
            raise self.wrong(f"a dataset of {what}", "an empty one without shape")
        if kinds and self.kind not in kinds:
            raise self.wrong(f"a dataset of {what}", str(self.item.dtype))
        return self

    @property
    def kind(self) -> str:
        """NumPy's letter for the type, ``T`` for text of any length."""
        dtype = self.item.dtype
        if isinstance(self.item, h5py.Dataset):
            text = h5py.check_string_dtype(dtype)
            return "T" if text is not None and text.length is None else str(dtype.kind)
        return "T" if dtype.kind in "OT" else str(dtype.kind)

    def check_whole(self) -> None:
        """Refuse an array of Zarr that lacks chunks, which would be read as zeros or empty text.

        Zarr leaves out chunks of nothing but zeros, so this is for values that cannot all be zero.
        """
        if isinstance(self.item, h5py.Dataset):
            return
        try:
            whole, there = self.item.nchunks, self.item.nchunks_initialized
        except DAMAGED as err:
            raise self.wrong("readable chunks", reason(err)) from err
        if there < whole:
            raise ValueError(
                f"Expected {whole:,} chunks of {self.file}: {self.key}, got {there:,}. The "
                "store is incomplete: copy it again"
            )

    def check_shape(self, shape: tuple[int, ...], wanted: Length) -> None:
        if len(shape) < len(wanted) or any(
            w is not None and w != n for n, w in zip(shape, wanted, strict=False)
        ):
            text = ", ".join("any" if w is None else f"{w:,}" for w in wanted)
            raise self.wrong(f"{len(wanted)} axes of length {text}", f"shape {list(shape)}")

    def values(self) -> np.ndarray:
        try:
            return np.asarray(self.item[...])
        except DAMAGED as err:
            raise ValueError(
                f"Expected {self.file}: {self.key} to be readable, got {reason(err)}. The file is "
                "damaged or incomplete: copy it again"
            ) from err

    def texts(self) -> list[str]:
        """A column of text."""
        self.as_dataset("TS", "text")
        if len(self.item.shape) != 1:
            raise self.wrong("one axis", f"shape {list(self.item.shape)}")
        try:
            return [str(text) for text in self.item.asstr()[:]]
        except DAMAGED as err:
            raise self.wrong("readable text", reason(err)) from err


def _arrays(parent: Node, slot: str, length: Length) -> None:
    """``obsm`` and the like: anything with the right first axes under any name."""
    if not parent.has(slot):
        return
    for child in parent.child(slot).as_group("", "dict").children():
        _element(child, length)
        if slot == "obsm" and child.key.endswith("/spatial") and not child.is_group:
            child.check_whole()


def _mapping(node: Node) -> None:
    for child in node.as_group("", "dict").children():
        _element(child, ())


def _matrix(node: Node, length: Length) -> None:
    if node.is_group and node.encoding not in ("csr_matrix", "csc_matrix"):
        if node.attribute("h5sparse_format") is None:
            raise node.wrong("a dense or sparse matrix", f"a group of {node.encoding!r}")
    _element(node, length)


def _element(node: Node, length: Length) -> None:
    """Any element, by its encoding; ``length`` is what its first axes must have."""
    encoding = node.encoding
    if node.is_group:
        if encoding == "" and node.attribute("h5sparse_format") is not None:
            encoding = "csr_matrix"
        check = _GROUPS.get(encoding)
        if check is None:
            known = encoding in _DATASETS
            raise node.wrong(
                "a dataset" if known else f"one of {', '.join(sorted(filter(None, _GROUPS)))}",
                f"a group of encoding-type {encoding!r}",
            )
        if encoding in ("", "dict", "anndata", "raw") and length:
            raise node.wrong("an array or table", f"a group of encoding-type {encoding!r}")
        check(node, length)
        return
    if encoding not in _DATASETS:
        known = encoding in _GROUPS
        raise node.wrong(
            "a group" if known else f"one of {', '.join(sorted(filter(None, _DATASETS)))}",
            f"a dataset of encoding-type {encoding!r}",
        )
    if encoding == "null":
        if length:
            raise node.wrong("an array or table", "nothing (encoding-type 'null')")
        return
    kinds, what = _DATASETS[encoding]
    node.as_dataset(kinds, what)
    if encoding in ("string", "numeric-scalar", "bytes") and node.item.shape != ():
        raise node.wrong("one value", f"shape {list(node.item.shape)}")
    if encoding in ("array", "string-array", "rec-array") and node.item.shape == ():
        raise node.wrong("an array", "one value")
    node.check_shape(node.item.shape, length)


def _sparse(node: Node, length: Length) -> None:
    """Its arrays and how they fit; what their numbers say is for :mod:`spatiagraph.data.sparse`."""
    name = "shape" if node.attribute("h5sparse_shape") is None else "h5sparse_shape"
    shape = np.asarray(node.attribute(name))
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or (shape < 0).any():
        raise node.wrong("an attribute 'shape' of two sizes", repr(node.attribute(name)))
    rows, columns = (int(n) for n in shape)
    node.check_shape((rows, columns), length)
    data, indices, indptr = (node.child(key).as_dataset() for key in ("data", "indices", "indptr"))
    data.as_dataset("biufc", "numbers").check_whole()
    for part in (indices, indptr):
        part.as_dataset("iu", "integers")
    for part in (data, indices, indptr):
        if len(part.item.shape) != 1:
            raise part.wrong("one axis", f"shape {list(part.item.shape)}")
    data.check_shape(data.item.shape, indices.item.shape)
    form = node.encoding or str(node.attribute("h5sparse_format"))
    major = columns if form.startswith("csc") else rows
    indptr.check_shape(indptr.item.shape, (major + 1,))
    ends = _ends(indptr)
    if ends != (0, indices.item.shape[0]):
        raise indptr.wrong(
            f"0 to {indices.item.shape[0]}, the number of values", f"{ends[0]} to {ends[1]}"
        )


def _ends(node: Node) -> tuple[int, int]:
    try:
        return int(node.item[0]), int(node.item[-1])
    except DAMAGED as err:
        raise node.wrong("readable numbers", reason(err)) from err


def _table(node: Node, length: int | None) -> int:
    """``obs`` and ``var``: returns the number of rows."""
    if not node.is_group:  # as AnnData wrote it before 0.7
        node.as_dataset("V", "rows with named columns")
        if len(node.item.shape) != 1:
            raise node.wrong("one axis", f"shape {list(node.item.shape)}")
        return int(node.item.shape[0])
    if node.encoding != "dataframe":
        raise node.wrong("a table (encoding-type 'dataframe')", f"{node.encoding!r}")
    return _dataframe(node, (length,))


def _dataframe(node: Node, length: Length) -> int:
    index, columns = node.attribute("_index"), node.attribute("column-order")
    if not isinstance(index, str):
        raise node.wrong("an attribute '_index' that names a column", repr(index))
    names = np.atleast_1d(np.asarray([] if columns is None else columns)).tolist()
    names = [n.decode(errors="replace") if isinstance(n, bytes) else n for n in names]
    if columns is None or not all(isinstance(n, str) for n in names):
        raise node.wrong("an attribute 'column-order' that lists columns", repr(columns))
    if len(set(names)) < len(names):
        raise node.wrong("columns that are there once", f"column-order {names[:8]}")
    rows = _column(node.child(index), None)
    text = node.child(index)
    if text.is_group and text.encoding == "nullable-string-array":  # names of pandas 3
        text = text.child(_OF_COLUMNS[text.encoding])
    if not text.is_group:
        text.check_whole()
    if length and length[0] is not None and rows != length[0]:
        raise node.wrong(f"{length[0]:,} rows", f"{rows:,}")
    for name in names:
        _column(node.child(name), rows)
    return rows


def _column(node: Node, length: int | None) -> int:
    """A column of a table; returns its length."""
    if node.is_group and node.encoding not in _OF_COLUMNS:
        raise node.wrong("a column", f"a group of encoding-type {node.encoding!r}")
    _element(node, (length,))
    legacy = None if node.is_group else node.attribute("categories")
    values = node.child(_OF_COLUMNS[node.encoding]) if node.is_group else node
    if len(values.item.shape) != 1:
        raise values.wrong("one axis", f"shape {list(values.item.shape)}")
    if legacy is not None and isinstance(node.item, h5py.Dataset):  # a reference, before 0.8
        try:
            categories = node.item.parent[legacy]
            number = len(categories)
        except DAMAGED as err:
            raise node.wrong("categories", reason(err)) from err
        _codes(node, number)
    return int(values.item.shape[0])


def _categorical(node: Node, length: Length) -> None:
    codes = node.child("codes").as_dataset("iu", "integers")
    categories = node.child("categories")
    _element(codes, length)
    rows = (
        categories.child(_OF_COLUMNS[categories.encoding]).item
        if categories.is_group and categories.encoding in _OF_COLUMNS
        else categories.as_dataset().item
    )
    _element(categories, ())
    if len(rows.shape) != 1 or len(codes.item.shape) != 1:
        raise node.wrong("codes and categories with one axis", f"{codes.item.shape}, {rows.shape}")
    if not isinstance(node.attribute("ordered"), bool | np.bool_):
        raise node.wrong("an attribute 'ordered' that is true or false", "another or none")
    _codes(codes, rows.shape[0])


def _codes(node: Node, number: int) -> None:
    node.as_dataset("iu", "integers")
    for start in range(0, node.item.shape[0], _AT_ONCE):
        try:
            codes = np.asarray(node.item[start : start + _AT_ONCE])
        except DAMAGED as err:
            raise node.wrong("readable numbers", reason(err)) from err
        bad = np.flatnonzero((codes < -1) | (codes >= number))
        if len(bad):
            raise node.wrong(
                f"codes of {number} categories, or -1",
                f"{codes[bad[0]]} in row {start + int(bad[0])}",
            )


def _nullable(kinds: str, what: str) -> Callable[[Node, Length], None]:
    def check(node: Node, length: Length) -> None:
        values, mask = node.child("values").as_dataset(kinds, what), node.child("mask")
        values.check_shape(values.item.shape, length)
        if len(values.item.shape) != 1:
            raise values.wrong("one axis", f"shape {list(values.item.shape)}")
        mask.as_dataset("b", "true and false")
        mask.check_shape(mask.item.shape, values.item.shape)

    return check


def _awkward(node: Node, length: Length) -> None:
    if node.attribute("form") is None or node.attribute("length") is None:
        raise node.wrong("attributes 'form' and 'length'", "none")
    for child in node.children():
        child.as_dataset()


_GROUPS: dict[str, Callable[[Node, Length], object]] = {
    "": lambda node, _: _mapping(node),
    "dict": lambda node, _: _mapping(node),
    "dataframe": _dataframe,
    "csr_matrix": _sparse,
    "csc_matrix": _sparse,
    "categorical": _categorical,
    "nullable-integer": _nullable("iu", "integers"),
    "nullable-boolean": _nullable("b", "true and false"),
    "nullable-string-array": _nullable("TSU", "text"),
    "awkward-array": _awkward,
    "anndata": lambda node, _: _anndata(node),
}
_DATASETS = {
    "": ("", "values"),
    "array": ("biufcSUV", "numbers"),
    "rec-array": ("V", "rows with named columns"),
    "string-array": ("TSU", "text"),
    "string": ("TSU", "text"),
    "numeric-scalar": ("biufc", "numbers"),
    "bytes": ("SVT", "bytes"),
    "null": ("", "nothing"),
}
_OF_COLUMNS = {
    "categorical": "codes",
    "nullable-integer": "values",
    "nullable-boolean": "values",
    "nullable-string-array": "values",
}
"""Groups that may be a column, and the part of them that is as long as it."""
